// Which paths a client has, and under which ids, as the network and commands change.
#include "slowpath/client_paths.h"

#include <gtest/gtest.h>

#include <map>

namespace braid::client_paths_test {
namespace {

using Change = ClientPaths::Change;
using Type = Change::Type;

PathConfig By(const std::string& interface, std::string name = "") {
  if (name.empty()) name = interface;
  return {name, {}, interface, {}};
}

class ClientPathsTest : public ::testing::Test {
 protected:
  void Configure(std::vector<PathConfig> paths) {
    Config config;
    config.tunnel.paths = std::move(paths);
    config.tunnel.auto_paths = config.tunnel.paths.empty();
    paths_.emplace(config);
  }

  void AddLink(const std::string& name, bool is_default = true, uint32_t metric = 0) {
    const int index = ++last_index_;
    network_.links.push_back({index, name, true, name == "lo", 1500});
    if (is_default) {
      network_.default_routes.push_back({index, IpAddress::Family::kV4, 254, metric});
    }
  }
  void RemoveLink(const std::string& name) {
    const int index = network_.Find(name)->index;
    std::erase_if(network_.links, [&](const NetLink& link) { return link.index == index; });
    std::erase_if(network_.default_routes,
                  [&](const NetDefaultRoute& route) { return route.link == index; });
  }

  std::vector<Change> Follow() {
    const auto choose = [this](const PathConfig& path) -> BindingChoice {
      const NetLink* link = network_.Find(path.interface);
      if (link == nullptr) return {std::nullopt, "no " + path.interface};
      return {PathBinding{link->name, link->index, {}}, ""};
    };
    return paths_->Follow(network_, choose, [this](uint8_t id) { return !in_use_.contains(id); });
  }

  absl::Status Add(const PathConfig& path) {
    return paths_->Add(path, [this](uint8_t id) { return !in_use_.contains(id); });
  }

  std::map<std::string, int> Ids() const {
    std::map<std::string, int> ids;
    for (size_t id = 0; id < kMaxPaths; ++id) {
      if ((*paths_)[id]) ids[(*paths_)[id]->config.name] = static_cast<int>(id);
    }
    return ids;
  }
  using Names = std::map<std::string, int>;

  NetSnapshot network_;
  std::optional<ClientPaths> paths_;
  std::set<uint8_t> in_use_;  // by somebody else still
  int last_index_ = 0;
};

TEST_F(ClientPathsTest, ConfiguredPathsHaveTheirPlacesAsIds) {
  AddLink("eth0");
  Configure({By("eth0"), By("wwan0")});
  EXPECT_EQ(Follow(),
            (std::vector<Change>{{Type::kBegin, 0}, {Type::kBegin, 1}, {Type::kBind, 0}}));
  EXPECT_EQ(Ids(), (Names{{"eth0", 0}, {"wwan0", 1}}));
  EXPECT_EQ((*paths_)[1]->problem, "no wwan0");
  EXPECT_TRUE(Follow().empty()) << "nothing has changed";
}

TEST_F(ClientPathsTest, APathFollowsItsLink) {
  AddLink("eth0");
  AddLink("wwan0");
  Configure({By("eth0"), By("wwan0")});
  Follow();
  RemoveLink("wwan0");
  EXPECT_EQ(Follow(), (std::vector<Change>{{Type::kUnbind, 1}}));
  AddLink("wwan0");
  EXPECT_EQ(Follow(), (std::vector<Change>{{Type::kBind, 1}}));
  // Gone and come between two looks: another device.
  RemoveLink("wwan0");
  AddLink("wwan0");
  EXPECT_EQ(Follow(), (std::vector<Change>{{Type::kUnbind, 1}, {Type::kBind, 1}}));
  EXPECT_EQ(Ids(), (Names{{"eth0", 0}, {"wwan0", 1}}));
}

TEST_F(ClientPathsTest, OneThatCouldNotBeOpenedIsTriedAgain) {
  AddLink("eth0");
  Configure({By("eth0")});
  Follow();
  paths_->Refuse(0, "too many open files");
  EXPECT_FALSE((*paths_)[0]->binding);
  EXPECT_EQ((*paths_)[0]->problem, "too many open files");
  EXPECT_EQ(Follow(), (std::vector<Change>{{Type::kBind, 0}}));
}

TEST_F(ClientPathsTest, CommandsAddAndEndPaths) {
  AddLink("eth0");
  AddLink("wwan0");
  Configure({By("eth0")});
  Follow();
  ASSERT_TRUE(Add(By("wwan0", "lte")).ok());
  EXPECT_EQ(Follow(), (std::vector<Change>{{Type::kBegin, 1}, {Type::kBind, 1}}));
  EXPECT_EQ((*paths_)[1]->origin, ClientPath::Origin::kCommand);
  ASSERT_TRUE(paths_->Remove("eth0").ok());
  EXPECT_EQ(Follow(), (std::vector<Change>{{Type::kUnbind, 0}, {Type::kEnd, 0}}));
  EXPECT_EQ(Ids(), (Names{{"lte", 1}}));
}

TEST_F(ClientPathsTest, AnotherConfigurationChangesWhatItChanges) {
  TunnelConfig before{.paths = {By("eth0"), By("eth1"), By("eth2")}};
  Configure(before.paths);
  for (const char* name : {"eth0", "eth1", "eth2", "eth3", "wlan0"}) AddLink(name);
  Follow();
  ASSERT_TRUE(Add(By("wlan0")).ok());
  ASSERT_TRUE(paths_->SetOptions({.name = "eth1", .weight = 3}).ok());
  ASSERT_TRUE(paths_->Remove("eth2").ok());
  Follow();

  // The same again: what commands have done stands.
  EXPECT_TRUE(paths_->SetConfig(before, before).empty());
  EXPECT_TRUE(Follow().empty());
  EXPECT_EQ((*paths_)[1]->config.bonding.weight, 3);

  TunnelConfig after = before;
  after.paths[0].bonding.weight = 2;
  after.paths.push_back(By("eth3"));
  ASSERT_TRUE(paths_->CheckConfig(before, after).ok());
  EXPECT_EQ(paths_->SetConfig(before, after), std::vector<uint8_t>{0});
  for (const Change& change : Follow()) {
    EXPECT_EQ((*paths_)[change.id]->config.name, "eth3") << "one that did not change was touched";
  }
  EXPECT_EQ((*paths_)[0]->config.bonding.weight, 2);
  EXPECT_EQ((*paths_)[1]->config.bonding.weight, 3);
  EXPECT_EQ(Ids().size(), 4u);  // eth0, eth1, wlan0, eth3

  // Another way out is another path.
  TunnelConfig moved = after;
  moved.paths[0].interface = "eth2";
  EXPECT_TRUE(paths_->SetConfig(after, moved).empty());
  const auto changes = Follow();
  EXPECT_EQ(std::count(changes.begin(), changes.end(), Change{Type::kEnd, 0}), 1);
}

TEST_F(ClientPathsTest, WithThoseByCommandThereMayBeTooMany) {
  TunnelConfig before{.paths = {By("eth0")}};
  Configure(before.paths);
  AddLink("wlan0");
  Follow();
  ASSERT_TRUE(Add(By("wlan0")).ok());
  TunnelConfig after;
  for (int i = 0; i < kMaxPaths; ++i) after.paths.push_back(By("eth" + std::to_string(i)));
  EXPECT_TRUE(absl::IsResourceExhausted(paths_->CheckConfig(before, after)));
  after.paths.pop_back();
  EXPECT_TRUE(paths_->CheckConfig(before, after).ok());
}

TEST_F(ClientPathsTest, CommandsThatCannotBeAreRefused) {
  AddLink("eth0");
  Configure({By("eth0")});
  Follow();
  EXPECT_EQ(Add(By("wwan0", "eth0")).code(), absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(paths_->Remove("lte").code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(paths_->Remove("eth0").code(), absl::StatusCode::kFailedPrecondition);
  for (int i = 1; i < kMaxPaths; ++i) {
    ASSERT_TRUE(Add(By("eth0", "more" + std::to_string(i))).ok());
    Follow();
  }
  EXPECT_EQ(Add(By("eth0", "ninth")).code(), absl::StatusCode::kResourceExhausted);
  // The id of the one that ends is not free at once.
  ASSERT_TRUE(paths_->Remove("more3").ok());
  Follow();
  in_use_ = {3};
  EXPECT_EQ(Add(By("eth0", "ninth")).code(), absl::StatusCode::kUnavailable);
  in_use_.clear();
  EXPECT_TRUE(Add(By("eth0", "ninth")).ok());
  Follow();
  EXPECT_EQ(Ids().at("ninth"), 3);
}

TEST_F(ClientPathsTest, AnIdIsUsedAgainAsLateAsCanBeAndByItsOwnNameFirst) {
  AddLink("eth0");
  Configure({By("eth0"), By("eth0", "x"), By("eth0", "y")});
  Follow();
  for (const char* name : {"x", "y"}) {
    ASSERT_TRUE(paths_->Remove(name).ok());
    Follow();
  }
  ASSERT_TRUE(Add(By("eth0", "new")).ok());
  Follow();
  EXPECT_EQ(Ids().at("new"), 3);
  ASSERT_TRUE(Add(By("eth0", "y")).ok());
  Follow();
  EXPECT_EQ(Ids().at("y"), 2);
}

TEST_F(ClientPathsTest, AutoTakesEveryInterfaceWithADefaultRoute) {
  AddLink("lo");
  AddLink("eth1", true, 200);
  AddLink("eth0", true, 100);
  AddLink("lan0", false);
  AddLink("braid0");
  Configure({});
  Follow();
  EXPECT_EQ(Ids(), (Names{{"eth0", 0}, {"eth1", 1}})) << "the preferred one is the first";
  EXPECT_EQ((*paths_)[0]->origin, ClientPath::Origin::kAuto);
  // Both families are one path.
  network_.default_routes.push_back(
      {network_.Find("eth0")->index, IpAddress::Family::kV6, 254, 1024});
  EXPECT_TRUE(Follow().empty());
  RemoveLink("eth0");
  EXPECT_EQ(Follow(), (std::vector<Change>{{Type::kUnbind, 0}, {Type::kEnd, 0}}));
  AddLink("eth0");
  Follow();
  EXPECT_EQ(Ids(), (Names{{"eth0", 0}, {"eth1", 1}}));
}

TEST_F(ClientPathsTest, AutoWaitsForAnIdThatIsStillInUse) {
  AddLink("eth0");
  Configure({});
  for (uint8_t id = 0; id < kMaxPaths; ++id) in_use_.insert(id);
  EXPECT_TRUE(Follow().empty());
  EXPECT_TRUE(paths_->waits());
  in_use_.erase(5);
  Follow();
  EXPECT_FALSE(paths_->waits());
  EXPECT_EQ(Ids(), (Names{{"eth0", 5}}));
}

TEST_F(ClientPathsTest, AutoTakesNoMoreThanThereMayBeAndTells) {
  for (int i = 0; i <= kMaxPaths; ++i) AddLink("eth" + std::to_string(i));
  Configure({});
  Follow();
  EXPECT_EQ(paths_->size(), size_t{kMaxPaths});
  EXPECT_NE(paths_->problem().find("\"eth8\" is no path"), std::string::npos);
  RemoveLink("eth2");
  Follow();
  EXPECT_EQ(paths_->problem(), "");
}

TEST_F(ClientPathsTest, WhatACommandTookAwayAutoDoesNotBringBack) {
  AddLink("eth0");
  AddLink("eth1");
  Configure({});
  Follow();
  ASSERT_TRUE(paths_->Remove("eth1").ok());
  Follow();
  RemoveLink("eth1");
  Follow();
  AddLink("eth1");
  EXPECT_TRUE(Follow().empty());
  // An interface that a command uses under another name is not taken twice.
  ASSERT_TRUE(Add(By("eth0", "mine")).ok());
  Follow();
  EXPECT_FALSE(Ids().contains("eth0"));
  EXPECT_TRUE(Ids().contains("mine"));
}

TEST_F(ClientPathsTest, OptionsChangeWhileAPathGoesOn) {
  AddLink("eth0");
  AddLink("wwan0");
  Configure({By("eth0"), By("wwan0", "lte")});
  Follow();
  EXPECT_EQ(paths_->SetOptions({.name = "lte", .weight = 2, .standby = true}).value(), 1);
  EXPECT_TRUE(Follow().empty());
  EXPECT_EQ((*paths_)[1]->config.bonding, (BondPathOptions{2, 0, true}));
  EXPECT_EQ(paths_->SetOptions({.name = "lte", .fixed_bytes_per_s = 5}).value(), 1);
  EXPECT_EQ((*paths_)[1]->config.bonding, (BondPathOptions{2, 5, true}));
  EXPECT_EQ(paths_->SetOptions({.name = "no"}).status().code(), absl::StatusCode::kNotFound);
}

TEST_F(ClientPathsTest, AnAutomaticPathThatComesBackHasItsChangedOptions) {
  AddLink("eth0");
  AddLink("wwan0");
  Configure({});
  Follow();
  ASSERT_TRUE(paths_->SetOptions({.name = "wwan0", .standby = true}).ok());
  EXPECT_TRUE(Follow().empty());
  RemoveLink("wwan0");
  Follow();
  AddLink("wwan0");
  Follow();
  EXPECT_TRUE((*paths_)[1]->config.bonding.standby);
}

}  // namespace
}  // namespace braid::client_paths_test
