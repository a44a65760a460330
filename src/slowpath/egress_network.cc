#include "slowpath/egress_network.h"

#include <algorithm>
#include <string>

#include "absl/strings/str_cat.h"
#include "base/limits.h"

namespace braid {
namespace {

// Not 169: what clouds tell their machines comes from 169.254.169.254.
constexpr int kFirst = 96;
constexpr int kLast = 159;
constexpr uint8_t kListenerHost = 1;
constexpr uint8_t kFirstNeighbourHost = 2;
static_assert(kFirstNeighbourHost + kMaxWorkers < 255);

IpPrefix Candidate(IpAddress::Family family, int number) {
  return *IpPrefix::Parse(family == IpAddress::Family::kV4
                              ? absl::StrCat("169.254.", number, ".0/24")
                              : absl::StrCat("fd62:7261:6964:", number, "::/64"));
}

bool IsTaken(const NetSnapshot& network, const IpPrefix& prefix) {
  return std::any_of(network.addresses.begin(), network.addresses.end(),
                     [&prefix](const NetAddress& one) { return prefix.Contains(one.address); });
}

IpAddress HostIn(const IpPrefix& prefix, uint8_t host) {
  IpAddress address = prefix.address;
  address.bytes[static_cast<size_t>(address.bytes_used()) - 1] = host;
  return address;
}

}  // namespace

absl::StatusOr<EgressNetwork> ChooseEgressNetwork(const NetSnapshot& network, bool has_v6) {
  EgressNetwork chosen;
  for (const auto family : {IpAddress::Family::kV4, IpAddress::Family::kV6}) {
    if (family == IpAddress::Family::kV6 && !has_v6) continue;
    int number = kFirst;
    while (number <= kLast && IsTaken(network, Candidate(family, number))) ++number;
    if (number > kLast) {
      return absl::ResourceExhaustedError(absl::StrCat(
          "proxy: every network that TCP flows could be turned round in is in use, from ",
          Candidate(family, kFirst).ToString(), " to ", Candidate(family, kLast).ToString()));
    }
    const IpPrefix prefix = Candidate(family, number);
    EgressNeighbours& of = family == IpAddress::Family::kV4 ? chosen.v4 : chosen.v6;
    of.listener = HostIn(prefix, kListenerHost);
    of.first = HostIn(prefix, kFirstNeighbourHost);
    chosen.addresses.push_back({of.listener, prefix.length});
  }
  return chosen;
}

}  // namespace braid
