#include "slowpath/throttle_commands.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "support/simulated_end.h"
#include "support/simulated_network.h"

namespace braid::throttle_commands_test {
namespace {

using testing::SimulatedEnd;
using testing::SimulatedNetwork;

constexpr RateLimit kFast = {6'250'000, 125'000};
constexpr RateLimit kSlow = {2'500'000, 50'000};

class ThrottleCommands : public ::testing::Test {
 protected:
  ThrottleCommands() {
    for (const SimulatedEnd* client : {&office_, &shop_}) server_.Know(*client);
    server_.Start();
  }

  const Peers& peers() { return server_.peers(); }  // peer0, peer1

  SimulatedNetwork network_{1};
  SimulatedEnd server_{network_, Role::kServer, {Endpoint::Parse("198.51.100.1:7700").value()}};
  SimulatedEnd office_{network_, Role::kClient, {Endpoint::Parse("192.0.2.10:40000").value()}};
  SimulatedEnd shop_{network_, Role::kClient, {Endpoint::Parse("192.0.2.11:40000").value()}};
};

TEST_F(ThrottleCommands, WhereNothingIsLimitedWorkersNeedNotLook) {
  EXPECT_EQ(MakeThrottle({}, peers(), 2), nullptr);
  // Of a peer that there is not.
  EXPECT_EQ(MakeThrottle({{}, {{"gone", {kFast, kFast}}}}, peers(), 2), nullptr);
}

TEST_F(ThrottleCommands, EachLimitIsThatOfItsPeerAndWay) {
  const auto throttle =
      MakeThrottle({{std::nullopt, kFast}, {{"peer1", {kSlow, std::nullopt}}}}, peers(), 2);
  ASSERT_NE(throttle, nullptr);
  EXPECT_EQ(throttle->tx.total, nullptr);
  EXPECT_EQ(throttle->rx.total->limit(), kFast);
  EXPECT_EQ(throttle->tx.Of(0), nullptr);
  ASSERT_NE(throttle->tx.Of(1), nullptr);
  EXPECT_EQ(throttle->tx.Of(1)->limit(), kSlow);
  EXPECT_EQ(throttle->rx.Of(1), nullptr);
  EXPECT_FALSE(throttle->tx.Limits(0));
  EXPECT_TRUE(throttle->rx.Limits(0));
}

TEST_F(ThrottleCommands, AChangeMayNameThePeersThatThereAre) {
  const auto change = [this](const char* text) {
    return ReadThrottleChange(nlohmann::json::parse(text), {}, peers());
  };
  EXPECT_TRUE(change(R"({"peers": {"peer1": {"rate_mbps": 20}}})").ok());
  EXPECT_FALSE(change(R"({"peers": {"peer2": {"rate_mbps": 20}}})").ok());
}

TEST_F(ThrottleCommands, WhatCommandsHaveChangedStandsUnlessTheConfigurationChangesItToo) {
  const ThrottleLimits slow = {kSlow, kSlow};
  const ThrottleLimits fast = {kFast, kFast};
  const ThrottleConfig before = {slow, {{"peer0", slow}}};
  const ThrottleConfig now = {fast, {{"peer0", fast}, {"peer1", fast}}};
  // Another limit of one peer leaves those of the others, and of all, alone.
  EXPECT_EQ(ThrottleAfterReload(now, before, {slow, {{"peer0", slow}, {"peer1", slow}}}, peers()),
            (ThrottleConfig{fast, {{"peer0", fast}, {"peer1", slow}}}));
  EXPECT_EQ(ThrottleAfterReload(now, before, {{}, {}}, peers()),
            (ThrottleConfig{{}, {{"peer1", fast}}}));
  EXPECT_EQ(ThrottleAfterReload(now, before, before, peers()), now);
  // Of a peer that has gone nothing is kept.
  EXPECT_EQ(ThrottleAfterReload({{}, {{"peer7", fast}}}, {}, {}, peers()), ThrottleConfig());
}

TEST_F(ThrottleCommands, LimitsAreDescribedAsTheyAreGiven) {
  EXPECT_EQ(DescribeLimits({kFast, std::nullopt}).dump(),
            R"({"send":{"rate_mbps":50.0,"burst_kb":125.0},"receive":null})");
}

}  // namespace
}  // namespace braid::throttle_commands_test
