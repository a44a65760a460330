#include "slowpath/key_file.h"

#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>

namespace braid::key_file_test {
namespace {

constexpr char kText[] = "AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA=";

Key Counting() {
  Key key;
  for (size_t i = 0; i < key.size(); ++i) key[i] = static_cast<uint8_t>(i + 1);
  return key;
}

TEST(KeyTextTest, IsBase64) {
  EXPECT_EQ(EncodeKey(Counting()), kText);
  ASSERT_TRUE(DecodeKey(kText).has_value());
  EXPECT_EQ(static_cast<const Key&>(*DecodeKey(kText)), Counting());
}

TEST(KeyTextTest, HasOneFormOnly) {
  const std::string text = kText;
  for (const std::string& wrong :
       {std::string(), text.substr(0, 43), text.substr(0, 40), text + "=", "AAAA" + text,
        text + " ", " " + text, text.substr(0, 42) + "B=", "_" + text.substr(1), text + text,
        std::string(44, '='), text.substr(0, 20) + "\n" + text.substr(20)}) {
    EXPECT_FALSE(DecodeKey(wrong).has_value()) << wrong;
  }
}

TEST(KeyTextTest, ALineMayEndInWhiteSpace) {
  const std::string text = kText;
  EXPECT_TRUE(DecodeKeyLine(text).has_value());
  EXPECT_TRUE(DecodeKeyLine(text + "\n").has_value());
  EXPECT_TRUE(DecodeKeyLine(text + " \t\r\n\n").has_value());
  EXPECT_FALSE(DecodeKeyLine("\n" + text).has_value());
  EXPECT_FALSE(DecodeKeyLine(text + "\nx").has_value());
  EXPECT_FALSE(DecodeKeyLine(std::string(kText) + '\0').has_value());
  EXPECT_FALSE(DecodeKeyLine(" \n").has_value());
}

class KeyFileTest : public ::testing::Test {
 protected:
  KeyFileTest() {
    char name[] = "/tmp/braid-key-test-XXXXXX";
    folder_ = mkdtemp(name);
    path_ = folder_ + "/key";
  }
  ~KeyFileTest() override { std::filesystem::remove_all(folder_); }

  void Write(const std::string& text, mode_t mode = 0600) {
    std::filesystem::remove(path_);
    std::ofstream(path_) << text;
    ASSERT_EQ(chmod(path_.c_str(), mode), 0);
  }

  // The text of the error, which names the file.
  std::string Refusal() {
    const absl::StatusOr<Secret> key = ReadKeyFile(path_);
    if (key.ok()) return "accepted";
    const std::string text(key.status().message());
    EXPECT_EQ(text.find(path_ + ": "), 0u) << text;
    return text;
  }

  std::string folder_;
  std::string path_;
};

TEST_F(KeyFileTest, IsReadWhenItIsPrivate) {
  for (const mode_t mode : {0600, 0400, 0700}) {
    Write(std::string(kText) + "\n", mode);
    const absl::StatusOr<Secret> key = ReadKeyFile(path_);
    ASSERT_TRUE(key.ok()) << key.status();
    EXPECT_EQ(static_cast<const Key&>(*key), Counting());
  }
}

TEST_F(KeyFileTest, IsRefusedWhenOthersAreLetIn) {
  const std::pair<mode_t, const char*> modes[] = {
      {0640, "0640"}, {0604, "0604"}, {0644, "0644"}, {0620, "0620"}, {0777, "0777"}};
  for (const auto& [mode, text] : modes) {
    Write(kText, mode);
    const std::string refusal = Refusal();
    EXPECT_NE(refusal.find(text), std::string::npos) << refusal;
    EXPECT_NE(refusal.find("chmod 600 " + path_), std::string::npos) << refusal;
  }
}

TEST_F(KeyFileTest, IsRefusedWhenItIsNoKey) {
  const std::string secret = std::string(kText).substr(0, 20);
  for (const std::string& text : {std::string(), secret, kText + std::string("\n") + kText}) {
    Write(text);
    const std::string refusal = Refusal();
    EXPECT_NE(refusal.find("base64"), std::string::npos) << refusal;
    EXPECT_EQ(refusal.find(secret), std::string::npos) << refusal;
  }
}

TEST_F(KeyFileTest, IsRefusedWhenItIsTooLarge) {
  Write(kText + std::string(kMaxKeyFileBytes - 44, '\n'));
  EXPECT_EQ(Refusal(), "accepted");
  Write(kText + std::string(kMaxKeyFileBytes - 43, '\n'));
  EXPECT_NE(Refusal().find("larger than 256"), std::string::npos);
}

TEST_F(KeyFileTest, IsRefusedWhenItIsNotARegularFile) {
  EXPECT_NE(Refusal().find("No such file"), std::string::npos);
  std::filesystem::create_directory(path_);
  EXPECT_NE(Refusal().find("regular file"), std::string::npos);
  std::filesystem::remove(path_);
  ASSERT_EQ(mkfifo(path_.c_str(), 0600), 0);
  EXPECT_NE(Refusal().find("regular file"), std::string::npos);
}

}  // namespace
}  // namespace braid::key_file_test
