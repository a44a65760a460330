// Where a path leaves the machine, for networks that are written down here.
#include "slowpath/path_binding.h"

#include <gtest/gtest.h>

#include <map>
#include <tuple>

namespace braid::path_binding_test {
namespace {

constexpr int kLo = 1, kEth = 2, kLte = 3, kDummy = 4;
constexpr uint32_t kMainTable = 254;

IpAddress Address(const char* text) { return IpAddress::Parse(text).value(); }
Endpoint At(const char* text) { return Endpoint::Parse(text).value(); }

const Endpoint kServer = At("198.51.100.1:7700");
const Endpoint kServer6 = At("[2001:db8::1]:7700");

// eth0 10.0.1.1 and lte0 10.0.2.1, 2001:db8:2::1; a service address on lo and one on a dummy.
class PathBindingTest : public ::testing::Test {
 protected:
  PathBindingTest() {
    network_.links = {{kLo, "lo", true, true, 65536},
                      {kEth, "eth0", true, false, 1500},
                      {kLte, "lte0", true, false, 1420},
                      {kDummy, "dummy0", true, true, 1500}};
    network_.addresses = {{kLo, Address("127.0.0.1")},      {kLo, Address("10.9.0.1")},
                          {kEth, Address("10.0.1.1")},      {kLte, Address("10.0.2.1")},
                          {kLte, Address("2001:db8:2::1")}, {kDummy, Address("10.9.0.2")}};
  }

  // By `out`, for sockets that are bound to nothing, or to `out`.
  void AddRoute(const Endpoint& to, int out) { routes_[to].push_back(out); }

  RouteLookup LookUp() const {
    return [this](const Endpoint& to, const IpAddress& local, int bound_to) -> std::optional<int> {
      EXPECT_TRUE(!local.is_set() || local.family == to.address.family);
      const auto found = routes_.find(to);
      if (found == routes_.end()) return std::nullopt;
      for (const int out : found->second) {
        if (bound_to == 0 || out == bound_to) return out;
      }
      return std::nullopt;
    };
  }

  BindingChoice Choose(const PathConfig& path, const std::vector<Endpoint>& remotes = {kServer}) {
    return ChooseBinding(path, remotes, network_, LookUp());
  }

  static PathConfig By(const char* interface) { return {"path", {}, interface, {}}; }
  static PathConfig From(const char* address) { return {"path", Address(address), "", {}}; }

  NetSnapshot network_;
  std::map<Endpoint, std::vector<int>> routes_;  // the preferred link first
};

TEST_F(PathBindingTest, APathOfNeitherIsBoundToNothing) {
  const BindingChoice choice = Choose({"default", {}, "", {}});
  EXPECT_EQ(choice.binding, PathBinding{});
  EXPECT_EQ(choice.problem, "");
}

TEST_F(PathBindingTest, AnAddressIsBoundToItsLinkWhateverTheKernelPrefers) {
  AddRoute(kServer, kEth);
  AddRoute(kServer, kLte);
  const BindingChoice lte = Choose(From("10.0.2.1"));
  EXPECT_EQ(lte.binding, (PathBinding{"lte0", kLte, Address("10.0.2.1")}));
  EXPECT_EQ(lte.problem, "");
  EXPECT_EQ(Choose(From("10.0.1.1")).binding, (PathBinding{"eth0", kEth, Address("10.0.1.1")}));
}

TEST_F(PathBindingTest, OnlyRoutesOfItsFamilyCount) {
  AddRoute(kServer6, kLte);
  EXPECT_EQ(Choose(From("2001:db8:2::1"), {kServer, kServer6}).binding->device, "lte0");
  // No IPv4 route at all: bound nevertheless, and told.
  const BindingChoice choice = Choose(From("10.0.2.1"), {kServer, kServer6});
  EXPECT_EQ(choice.binding->device, "lte0");
  EXPECT_NE(choice.problem.find("no route through lte0 leads to 198.51.100.1"), std::string::npos);
}

TEST_F(PathBindingTest, AnAddressOfNoRealLinkIsBoundToNone) {
  AddRoute(kServer, kEth);
  for (const char* address : {"10.9.0.1", "10.9.0.2"}) {
    const BindingChoice choice = Choose(From(address));
    EXPECT_EQ(choice.binding, (PathBinding{"", 0, Address(address)}));
    EXPECT_EQ(choice.problem, "");
  }
}

TEST_F(PathBindingTest, WhereOnlyAnotherLinkLeadsToTheEndpointTheKernelsRouteIsTakenAndTold) {
  AddRoute(kServer, kEth);
  const BindingChoice choice = Choose(From("10.0.2.1"));
  EXPECT_EQ(choice.binding, (PathBinding{"", 0, Address("10.0.2.1")}));
  EXPECT_NE(choice.problem.find("leaves by eth0 although 10.0.2.1 is an address of lte0"),
            std::string::npos)
      << choice.problem;
  EXPECT_NE(choice.problem.find("ip route add default via GATEWAY dev lte0"), std::string::npos);
}

TEST_F(PathBindingTest, ARouteInATableThatNoRuleChoosesIsNamed) {
  AddRoute(kServer, kEth);
  network_.default_routes = {{kEth, IpAddress::Family::kV4, kMainTable, 0},
                             {kLte, IpAddress::Family::kV6, 300, 0},
                             {kLte, IpAddress::Family::kV4, 200, 0}};
  for (const PathConfig& path : {By("lte0"), From("10.0.2.1")}) {
    const BindingChoice choice = Choose(path);
    EXPECT_NE(choice.problem.find("the main table has none; table 200"), std::string::npos);
    EXPECT_NE(choice.problem.find("\"ip rule add oif lte0 lookup 200\""), std::string::npos);
  }
  EXPECT_EQ(Choose(By("lte0")).binding->device, "lte0") << "what was asked for by name is kept";
}

TEST_F(PathBindingTest, OneOfSeveralEndpointsIsEnough) {
  AddRoute(kServer6, kLte);
  const BindingChoice choice = Choose(By("lte0"), {kServer, kServer6});
  EXPECT_EQ(choice.problem, "");
}

TEST_F(PathBindingTest, WhatIsMissingOrDownIsNamedAndNotUsed) {
  network_.links[2].up = false;
  const std::tuple<PathConfig, const char*> cases[] = {
      {By("wwan9"), "this machine has no interface \"wwan9\""},
      {By("lte0"), "interface \"lte0\" is down"},
      {From("10.0.3.1"), "this machine has no address 10.0.3.1"},
      {From("10.0.2.1"), "interface \"lte0\", which has 10.0.2.1, is down"},
  };
  for (const auto& [path, problem] : cases) {
    const BindingChoice choice = Choose(path);
    EXPECT_FALSE(choice.binding);
    EXPECT_EQ(choice.problem, problem);
  }
}

TEST_F(PathBindingTest, AnAddressOnTwoLinksIsBoundToTheOneThatLeadsThere) {
  network_.addresses.push_back({kEth, Address("10.0.2.1")});
  AddRoute(kServer, kEth);
  EXPECT_EQ(Choose(From("10.0.2.1")).binding->device, "eth0");
  network_.links[1].up = false;
  EXPECT_NE(Choose(From("10.0.2.1")).binding->device, "eth0");
}

TEST_F(PathBindingTest, BeforeANameIsResolvedItsLinkIsTaken) {
  const BindingChoice choice = Choose(From("10.0.2.1"), {});
  EXPECT_EQ(choice.binding->device, "lte0");
  EXPECT_EQ(choice.problem, "");
}

TEST_F(PathBindingTest, TheRemoteIsTheFirstThatThePathLeadsTo) {
  AddRoute(kServer, kEth);
  AddRoute(kServer6, kLte);
  const auto remote = [&](const PathConfig& path) {
    return ChooseRemote(path, Choose(path).binding, {kServer, kServer6}, LookUp());
  };
  EXPECT_EQ(remote(By("eth0")), kServer);
  EXPECT_EQ(remote(By("lte0")), kServer6);
  EXPECT_EQ(remote(From("2001:db8:2::1")), kServer6);
  routes_.clear();
  EXPECT_EQ(remote(By("lte0")), kServer) << "the first one, as long as there is no route";
  EXPECT_EQ(ChooseRemote(From("10.0.2.1"), std::nullopt, {kServer6}, LookUp()), std::nullopt);
}

}  // namespace
}  // namespace braid::path_binding_test
