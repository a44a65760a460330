// The counter of initiations: always greater than before, over restarts and wrong clocks.
#include "slowpath/handshake_counter.h"

#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>

namespace braid::handshake_counter_test {
namespace {

constexpr uint64_t kNow = 1'700'000'000'000'000'000;  // 2023

class HandshakeCounterTest : public ::testing::Test {
 protected:
  HandshakeCounterTest() {
    char name[] = "/tmp/braid-counter-XXXXXX";
    folder_ = mkdtemp(name);
  }
  ~HandshakeCounterTest() override { std::filesystem::remove_all(folder_); }

  HandshakeCounter Loaded(uint8_t key = 1) {
    Key public_key{};
    public_key[0] = key;
    HandshakeCounter counter(folder_, public_key);
    EXPECT_TRUE(counter.Load().ok());
    return counter;
  }
  std::string File() const {
    for (const auto& entry : std::filesystem::directory_iterator(folder_)) return entry.path();
    return "";
  }

  std::string folder_;
};

TEST_F(HandshakeCounterTest, GoesByTheClock) {
  HandshakeCounter counter = Loaded();
  EXPECT_EQ(counter.Next(kNow), kNow);
  EXPECT_EQ(counter.Next(kNow + 5), kNow + 5);
}

TEST_F(HandshakeCounterTest, IncreasesThoughTheClockStandsStillOrGoesBack) {
  HandshakeCounter counter = Loaded();
  EXPECT_EQ(counter.Next(kNow), kNow);
  EXPECT_EQ(counter.Next(kNow), kNow + 1);
  EXPECT_EQ(counter.Next(kNow - 1'000'000), kNow + 2);
  EXPECT_EQ(counter.Next(0), kNow + 3);
}

TEST_F(HandshakeCounterTest, IsNeverZero) { EXPECT_EQ(Loaded().Next(0), 1u); }

TEST_F(HandshakeCounterTest, GoesOnAfterARestartWithAClockAt1970) {
  EXPECT_EQ(Loaded().Next(kNow), kNow);
  EXPECT_EQ(Loaded().Next(12), kNow + 1);
  // Every number is kept before it is used, so also a crash repeats none.
  HandshakeCounter counter = Loaded();
  for (int i = 0; i < 10; ++i) counter.Next(12);
  EXPECT_EQ(Loaded().Next(12), kNow + 12);
}

TEST_F(HandshakeCounterTest, EachKeyHasACounterOfItsOwn) {
  Loaded(1).Next(kNow);
  EXPECT_EQ(Loaded(2).Next(7), 7u);
  EXPECT_EQ(Loaded(1).Next(7), kNow + 1);
}

TEST_F(HandshakeCounterTest, MakesItsFolder) {
  folder_ += "/state/of/braid";
  EXPECT_EQ(Loaded().Next(kNow), kNow);
  EXPECT_EQ(Loaded().Next(0), kNow + 1);
  folder_.resize(folder_.size() - std::string("/state/of/braid").size());
}

TEST_F(HandshakeCounterTest, AFileThatIsNoNumberIsToldAndSetAside) {
  Loaded().Next(kNow);
  const std::string file = File();
  for (const char* text : {"", "\n", "what", "-3", "99999999999999999999999999"}) {
    std::ofstream(file) << text;
    Key public_key{};
    public_key[0] = 1;
    HandshakeCounter counter(folder_, public_key);
    const absl::Status status = counter.Load();
    EXPECT_NE(status.message().find(file + ".damaged"), std::string::npos) << status;
    EXPECT_EQ(counter.Next(5), 5u) << text;
    std::string aside;
    std::getline(std::ifstream(file + ".damaged"), aside, '\0');
    EXPECT_EQ(aside, text);
  }
}

// It may be there again: to begin anew would make every initiation an old one.
TEST_F(HandshakeCounterTest, AFileThatCannotBeReadStaysAsItIs) {
  Loaded().Next(kNow);
  const std::string file = File();
  std::ofstream(file) << std::string(1000, '7');
  Key public_key{};
  public_key[0] = 1;
  HandshakeCounter counter(folder_, public_key);
  EXPECT_FALSE(counter.Load().ok());
  EXPECT_EQ(counter.Next(5), 5u);
  EXPECT_EQ(std::filesystem::file_size(file), 1000u);
}

TEST_F(HandshakeCounterTest, TheFileIsItsOwnersAlone) {
  Loaded().Next(kNow);
  struct stat file;
  ASSERT_EQ(stat(File().c_str(), &file), 0);
  EXPECT_EQ(file.st_mode & 0777, 0600u);
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder_),
                          std::filesystem::directory_iterator()),
            1)
      << "something is left beside it";
}

TEST_F(HandshakeCounterTest, SaysWhenNothingCanBeKeptAndGoesByTheClock) {
  const std::string file = folder_ + "/file";
  std::ofstream(file) << "no folder";
  HandshakeCounter counter(file, Key{});
  const absl::Status status = counter.Load();
  EXPECT_FALSE(status.ok());
  EXPECT_NE(status.message().find("security.state_dir"), std::string::npos) << status;
  EXPECT_EQ(counter.Next(kNow), kNow);
  EXPECT_EQ(counter.Next(kNow), kNow + 1);
}

}  // namespace
}  // namespace braid::handshake_counter_test
