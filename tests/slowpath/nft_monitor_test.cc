// Changes of nftables, in a network of the test's own.
#include "slowpath/nft_monitor.h"

#include <gtest/gtest.h>

#include <chrono>
#include <cstdlib>
#include <thread>

#include "support/network.h"

namespace braid::nft_monitor_test {
namespace {

using testing::InFreshNetwork;

void Nft(const std::string& commands) {
  ASSERT_EQ(std::system(("nft '" + commands + "' >/dev/null").c_str()), 0) << commands;
}

class Following {
 public:
  Following() : monitor_(io_, [this] { Hear(); }) { EXPECT_EQ(monitor_.Start(), absl::OkStatus()); }
  ~Following() {
    monitor_.Close();
    io_.poll();
  }

  // How often something was told, once anything was, or after a while.
  int Wait() {
    told_ = 0;
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(5);
    while (told_ == 0 && std::chrono::steady_clock::now() < end) {
      io_.run_for(std::chrono::milliseconds(10));
    }
    io_.run_for(2 * NftMonitor::kCoalesce);
    return told_;
  }
  // How long each that hears of a change needs for it.
  void set_busy(std::chrono::milliseconds busy) { busy_ = busy; }
  bool IsQuiet() {
    told_ = 0;
    io_.run_for(3 * NftMonitor::kCoalesce);
    return told_ == 0;
  }

 private:
  void Hear() {
    ++told_;
    std::this_thread::sleep_for(busy_);
  }

  boost::asio::io_context io_;
  NftMonitor monitor_;
  std::chrono::milliseconds busy_{0};
  int told_ = 0;
};

TEST(NftMonitor, TellsOfEachKindOfChangeOnce) {
  InFreshNetwork([] {
    Following following;
    EXPECT_TRUE(following.IsQuiet());
    for (const char* change :
         {"add table inet mine", "add chain inet mine output",
          "add rule inet mine output counter; add rule inet mine output counter",
          "flush chain inet mine output", "add set inet mine some { type ipv4_addr; }",
          "add element inet mine some { 10.0.0.1 }", "flush ruleset"}) {
      Nft(change);
      EXPECT_EQ(following.Wait(), 1) << change;
    }
  });
}

TEST(NftMonitor, IsQuietWhereNothingChanges) {
  InFreshNetwork([] {
    Nft("add table inet mine");
    Following following;
    Nft("list ruleset");
    EXPECT_TRUE(following.IsQuiet());
    EXPECT_NE(std::system("nft add rule inet mine missing accept 2>/dev/null"), 0);
    EXPECT_TRUE(following.IsQuiet());
  });
}

TEST(NftMonitor, IsToldOfLessOftenWhereThatTakesLong) {
  InFreshNetwork([] {
    Following following;
    following.set_busy(std::chrono::milliseconds(60));
    Nft("add table inet mine");
    ASSERT_EQ(following.Wait(), 1);
    Nft("add table inet other");
    EXPECT_TRUE(following.IsQuiet()) << "for ten times as long";
    EXPECT_EQ(following.Wait(), 1) << "and then it is told";
  });
}

// Each is a message of its own: they take no room, and what is there in the end is told.
TEST(NftMonitor, ManyElementsAreOneChange) {
  InFreshNetwork([] {
    Nft("add table inet mine; add set inet mine some { type ipv4_addr; }");
    Following following;
    std::string elements;
    for (int i = 0; i < 5000; ++i) {
      elements +=
          (i == 0 ? "10.0." : ", 10.0.") + std::to_string(i / 250) + "." + std::to_string(i % 250);
    }
    Nft("add element inet mine some { " + elements + " }");
    EXPECT_EQ(following.Wait(), 1);
    Nft("flush ruleset");
    EXPECT_EQ(following.Wait(), 1);
  });
}

}  // namespace
}  // namespace braid::nft_monitor_test
