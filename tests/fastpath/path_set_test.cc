// How a lane's source address is followed: believed only once it has answered.
#include "fastpath/path_set.h"

#include <gtest/gtest.h>

namespace braid::path_set_test {
namespace {

Route From(const char* remote) { return {*Endpoint::Parse(remote), {}, 0}; }

class SourceTrackerTest : public ::testing::Test {
 protected:
  bool OnNewest(const Route& source, TimeNs now_ns = 1000, const IpAddress& trusted = {}) {
    return tracker_.OnNewest(source, trusted, now_ns, [this] { return ++drawn_; });
  }

  const Route home_ = From("10.0.0.1:1000");
  const Route away_ = From("10.0.0.2:2000");
  SourceTracker tracker_;
  uint64_t drawn_ = 100;
};

TEST_F(SourceTrackerTest, BelievesAFirstSourceAtATrustedAddressAtOnce) {
  EXPECT_FALSE(OnNewest(home_, 1000, home_.remote.address));
  EXPECT_EQ(tracker_.current(), home_);
  EXPECT_EQ(drawn_, 100u);
}

TEST_F(SourceTrackerTest, PingsASourceThatIsNotTrusted) {
  EXPECT_TRUE(OnNewest(away_, 1000, home_.remote.address));
  EXPECT_FALSE(tracker_.current().remote.is_set());
  EXPECT_EQ(tracker_.candidate(), away_);
  EXPECT_TRUE(tracker_.OnPong(tracker_.token()));
  EXPECT_EQ(tracker_.current(), away_);
}

TEST_F(SourceTrackerTest, TrustsTheAddressForTheFirstSourceOnly) {
  OnNewest(home_, 1000, home_.remote.address);
  const Route other_port = From("10.0.0.1:1001");
  EXPECT_TRUE(OnNewest(other_port, 1000, home_.remote.address));
  EXPECT_EQ(tracker_.current(), home_);
}

TEST_F(SourceTrackerTest, MovesOnlyWhenTheRightTokenComesBack) {
  OnNewest(home_, 1000, home_.remote.address);
  EXPECT_TRUE(OnNewest(away_));
  const uint64_t token = tracker_.token();
  EXPECT_FALSE(tracker_.OnPong(token + 1));
  EXPECT_FALSE(tracker_.OnPong(0));
  EXPECT_EQ(tracker_.current(), home_);
  EXPECT_TRUE(tracker_.OnPong(token));
  EXPECT_EQ(tracker_.current(), away_);
  EXPECT_FALSE(tracker_.OnPong(token));  // it proves nothing twice
}

TEST_F(SourceTrackerTest, PingsTheSameCandidateAgainOnlyAfterAWhile) {
  EXPECT_TRUE(OnNewest(away_, 1000));
  const uint64_t token = tracker_.token();
  EXPECT_FALSE(OnNewest(away_, 1001));
  EXPECT_FALSE(OnNewest(away_, 1000 + SourceTracker::kPingIntervalNs - 1));
  EXPECT_TRUE(OnNewest(away_, 1000 + SourceTracker::kPingIntervalNs));
  EXPECT_EQ(tracker_.token(), token);  // the answer to the first may still come
  EXPECT_TRUE(tracker_.OnPong(token));
}

TEST_F(SourceTrackerTest, DrawsANewTokenForANewCandidate) {
  EXPECT_TRUE(OnNewest(away_, 1000));
  const uint64_t first = tracker_.token();
  EXPECT_FALSE(OnNewest(From("10.0.0.3:3000"), 1001));  // alternating sources cause no ping each
  EXPECT_TRUE(OnNewest(From("10.0.0.3:3000"), 1000 + SourceTracker::kPingIntervalNs));
  EXPECT_NE(tracker_.token(), first);
  EXPECT_FALSE(tracker_.OnPong(first));
}

TEST_F(SourceTrackerTest, GivesACandidateUpWhenTheOldSourceIsHeardAgain) {
  OnNewest(home_, 1000, home_.remote.address);
  EXPECT_TRUE(OnNewest(away_));
  const uint64_t token = tracker_.token();
  EXPECT_FALSE(OnNewest(home_));
  EXPECT_FALSE(tracker_.OnPong(token));
  EXPECT_EQ(tracker_.current(), home_);
}

TEST_F(SourceTrackerTest, TellsRoutesApartByLocalAddressAndSocketToo) {
  OnNewest(home_, 1000, home_.remote.address);
  Route other_local = home_;
  other_local.local = *IpAddress::Parse("10.9.9.9");
  EXPECT_TRUE(OnNewest(other_local, 1000));
  Route other_group = home_;
  other_group.socket_group = 1;
  EXPECT_TRUE(OnNewest(other_group, 1000 + SourceTracker::kPingIntervalNs));
}

TEST_F(SourceTrackerTest, NotesWhenItHeardAnything) {
  OnNewest(away_, 5000);
  EXPECT_EQ(tracker_.heard_ns(), 5000u);
  OnNewest(away_, 6000);
  EXPECT_EQ(tracker_.heard_ns(), 6000u);
}

TEST_F(SourceTrackerTest, ForgetsEverything) {
  OnNewest(home_, 1000, home_.remote.address);
  OnNewest(away_);
  const uint64_t token = tracker_.token();
  tracker_.Forget();
  EXPECT_FALSE(tracker_.current().remote.is_set());
  EXPECT_FALSE(tracker_.OnPong(token));
}

}  // namespace
}  // namespace braid::path_set_test
