#include "slowpath/host_network.h"

#include <net/if.h>

#include <algorithm>
#include <filesystem>
#include <iterator>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "slowpath/host_files.h"
#include "slowpath/kill_switch.h"
#include "slowpath/network_plan.h"
#include "slowpath/resolved.h"

namespace braid {
namespace {

// The servers that systemd-resolved asks itself.
constexpr char kResolvedUplinks[] = "/run/systemd/resolve/resolv.conf";
constexpr char kWrittenByBraid[] = "# Written by braid";
constexpr uint32_t kFirstTable = 47'009;
constexpr uint32_t kTables = 16;  // that several daemons may choose from

constexpr DurationNs kTellResolvedEveryNs = 15 * kSecondNs;

constexpr char kStrict[] = "1";
constexpr char kLoose[] = "2";
constexpr char kAcceptRaUnlessForwarding[] = "1";
constexpr char kAcceptRaAlways[] = "2";

std::string OfDevice(const char* family, const std::string& device, const char* name) {
  return absl::StrCat("/proc/sys/net/", family, "/conf/", device, "/", name);
}

std::string ResolvConfText(const DnsConfig& dns) {
  std::string text =
      absl::StrCat(kWrittenByBraid, ", which puts back what was here when it ends.\n");
  for (const IpAddress& server : dns.servers) {
    absl::StrAppend(&text, "nameserver ", server.ToString(), "\n");
  }
  if (dns.domains.empty()) return text;
  absl::StrAppend(&text, "search");
  for (const std::string& domain : dns.domains) absl::StrAppend(&text, " ", domain);
  return text + "\n";
}

// By PlanNetwork(); what else there is follows from what stands there now.
bool IsPlanned(const HostChange& change) {
  return std::holds_alternative<OwnRoute>(change) || std::holds_alternative<OwnRule>(change) ||
         std::holds_alternative<NftTable>(change);
}

}  // namespace

absl::Status HostNetwork::TakeBack() { return bring_up_.TakeBackAll(); }

absl::Status HostNetwork::Follow(const NetSnapshot& network, const Tunnel& tunnel) {
  const NetworkConfig& wanted = config_.network;
  // First, and whatever becomes of the rest: it is there for when that fails.
  const absl::Status shut_in = HealKillSwitch();
  const bool draws_traffic = wanted.routes && (tunnel.has_carried || wanted.kill_switch);
  if (draws_traffic && table_ == 0) {
    if (absl::Status status = ChooseTable(); !status.ok()) return status;
  }
  const NetworkPlanInput input{.config = config_,
                               .network = network,
                               .table = table_,
                               .has_v6 = MayHaveIpv6(wanted.device),
                               .draws_traffic = draws_traffic,
                               .guard = Guard(network)};
  const std::vector<HostChange> plan = PlanNetwork(input);
  TellOfV6(IsV6Left(input));
  // Answers are to come back before anything is sent another way, and nothing is forwarded before
  // the table that guards it is there.
  const absl::Status healed = Heal(plan);
  if (!shut_in.ok()) return shut_in;
  if (!healed.ok()) return healed;
  if (absl::Status status = FilterLoosely(tunnel.path_devices); !status.ok()) return status;
  if (absl::Status status = Reconcile(plan); !status.ok()) return status;
  if (absl::Status status = LetForward(network); !status.ok()) return status;
  return SetResolver(tunnel);
}

absl::Status HostNetwork::OnConfig(const NetworkConfig& before) {
  const NetworkConfig& now = config_.network;
  std::vector<HostChange> over;
  for (const HostChange& change : bring_up_.changes()) {
    const auto* sysctl = std::get_if<Sysctl>(&change);
    const bool is_of_nat = sysctl != nullptr && (sysctl->path.ends_with("/forwarding") ||
                                                 sysctl->path.ends_with("/accept_ra"));
    const bool is_of_dns = std::holds_alternative<ReplacedFile>(change);
    if ((is_of_nat && now.nat != before.nat) || (is_of_dns && now.dns != before.dns)) {
      over.push_back(change);
    }
  }
  if (absl::Status status = bring_up_.TakeBack(over); !status.ok()) return status;
  if (now.dns == before.dns || resolved_link_ == 0) return absl::OkStatus();
  return RevertResolvedServers(std::exchange(resolved_link_, 0));
}

// One that nobody's routes are in, of either family.
absl::Status HostNetwork::ChooseTable() {
  for (uint32_t table = kFirstTable; table < kFirstTable + kTables; ++table) {
    bool used = false;
    for (const auto family : {IpAddress::Family::kV4, IpAddress::Family::kV6}) {
      const auto in_use = IsTableInUse(family, table);
      if (!in_use.ok()) return in_use.status();
      used |= *in_use;
    }
    if (used) continue;
    table_ = table;
    return absl::OkStatus();
  }
  return absl::ResourceExhaustedError(absl::StrCat(
      "network.routes: the routing tables ", kFirstTable, " to ", kFirstTable + kTables - 1,
      " are all in use; \"ip route show table all\" shows "
      "by whom"));
}

void HostNetwork::TellOfV6(bool is_left) {
  if (std::exchange(is_v6_left_, is_left) || !is_left) return;
  report_(absl::StrCat("network.routes: IPv6 leaves beside the tunnel, since ",
                       config_.network.device, " may have none (net.ipv6.conf.",
                       config_.network.device, ".disable_ipv6); \"kill_switch\" keeps it in"));
}

// --- What others have taken away ---

// As it was engaged last, for whichever tunnels. Nobody lifts it between the look at what it is to
// be and the making; who may not have the lock holds the switch all the same.
absl::Status HostNetwork::HealKillSwitch() {
  if (!config_.network.kill_switch) return absl::OkStatus();
  const std::string& folder = config_.security.state_dir;
  const auto kept = KeptKillSwitch(folder);
  if (!kept.ok() || !*kept) return kept.status();
  const auto missing = host_.Missing({**kept});
  if (!missing.ok() || missing->empty()) return missing.status();
  const auto lock = LockKillSwitch(folder);
  const auto now = KeptKillSwitch(folder);
  if (!now.ok() || !*now) return now.status();
  return bring_up_.MakeAgain(**now);
}

// Other programs flush rule sets, remove routes that are not theirs, or take a device down and up.
// What is no longer planned, as where the device has lost IPv6, is not mended but goes.
absl::Status HostNetwork::Heal(const std::vector<HostChange>& plan) {
  const std::set<HostChange> planned(plan.begin(), plan.end());
  std::vector<HostChange> wanted;
  std::copy_if(bring_up_.changes().begin(), bring_up_.changes().end(), std::back_inserter(wanted),
               [&planned](const HostChange& change) { return planned.contains(change); });
  const auto missing = host_.Missing(wanted);
  if (!missing.ok()) return missing.status();
  absl::Status first;
  for (const HostChange& change : *missing) {
    absl::Status status = bring_up_.MakeAgain(change);
    if (first.ok()) first = std::move(status);
  }
  return first;
}

// A table whose contents are to be others is exchanged, so that it is never missing.
absl::Status HostNetwork::ExchangeTables(const std::vector<HostChange>& wanted) {
  const std::vector<HostChange> made = bring_up_.changes();
  for (const HostChange& one : wanted) {
    const auto* now = std::get_if<NftTable>(&one);
    if (now == nullptr) continue;
    for (const HostChange& other : made) {
      const auto* before = std::get_if<NftTable>(&other);
      const bool is_of_its_name =
          before != nullptr && before->family == now->family && before->name == now->name;
      if (!is_of_its_name || *before == *now) continue;
      if (absl::Status status = bring_up_.Replace(*before, *now); !status.ok()) return status;
    }
  }
  return absl::OkStatus();
}

// First what is to come, then what is to go, so that nothing takes the other way in between.
absl::Status HostNetwork::Reconcile(const std::vector<HostChange>& wanted) {
  if (absl::Status status = ExchangeTables(wanted); !status.ok()) return status;
  const std::set<HostChange> made(bring_up_.changes().begin(), bring_up_.changes().end());
  const std::set<HostChange> to_be(wanted.begin(), wanted.end());
  std::vector<HostChange> missing, over;
  std::copy_if(wanted.begin(), wanted.end(), std::back_inserter(missing),
               [&made](const HostChange& change) { return !made.contains(change); });
  std::copy_if(
      bring_up_.changes().begin(), bring_up_.changes().end(), std::back_inserter(over),
      [&to_be](const HostChange& change) { return IsPlanned(change) && !to_be.contains(change); });
  if (absl::Status status = bring_up_.Make(missing); !status.ok()) return status;
  return bring_up_.TakeBack(over);
}

// A device may go between two looks at it; then there is nothing to be set.
absl::Status HostNetwork::SetSysctl(const std::string& path, const std::string& value) {
  const absl::Status status = bring_up_.SetSysctl(path, value);
  return absl::IsNotFound(status) ? absl::OkStatus() : status;
}

// --- Reverse path filters ---

// The kernel takes the larger one of a device's value and that of all. Loose is larger than strict.
absl::Status HostNetwork::FilterLoosely(const std::vector<std::string>& devices) {
  const auto of_all = HostFiles().Read(OfDevice("ipv4", "all", "rp_filter"));
  for (const std::string& device : devices) {
    if (device.empty()) continue;
    const std::string path = OfDevice("ipv4", device, "rp_filter");
    const auto now = HostFiles().Read(path);
    if (!now.ok()) continue;  // it has gone meanwhile
    const bool strict = *now == kStrict || (*now != kLoose && of_all.ok() && *of_all == kStrict);
    if (!strict) continue;
    if (absl::Status status = SetSysctl(path, kLoose); !status.ok()) return status;
  }
  return absl::OkStatus();
}

// --- Forwarding ---

bool HostNetwork::HasMadeSysctl(const std::string& path) const {
  return std::any_of(bring_up_.changes().begin(), bring_up_.changes().end(),
                     [&path](const HostChange& change) {
                       const auto* sysctl = std::get_if<Sysctl>(&change);
                       return sysctl != nullptr && sysctl->path == path;
                     });
}

// What forwards only since braid has let it.
NatGuard HostNetwork::Guard(const NetSnapshot& network) const {
  const auto is_ours = [this](const std::string& path) {
    return HasMadeSysctl(path) || HostFiles().Read(path).value_or("") == "0";
  };
  NatGuard guard;
  for (const std::string& device : ForwardingDevices(config_, network)) {
    if (is_ours(OfDevice("ipv4", device, "forwarding"))) guard.guarded.push_back(device);
  }
  guard.guards_v6 = ForwardsV6(config_) && is_ours(OfDevice("ipv6", "all", "forwarding"));
  return guard;
}

// IPv4 is forwarded from a device when its own switch is on: the switch for all would change more
// than that, and not all of it comes back with it.
absl::Status HostNetwork::LetForward(const NetSnapshot& network) {
  for (const std::string& device : ForwardingDevices(config_, network)) {
    const absl::Status status = SetSysctl(OfDevice("ipv4", device, "forwarding"), "1");
    if (!status.ok()) return status;
  }
  if (!ForwardsV6(config_)) return absl::OkStatus();
  if (absl::Status status = NoteLateDevices(network); !status.ok()) return status;
  return LetForwardV6();
}

// A device that has come since begins with what devices begin with now, which is not what it would
// have begun with without braid: that it is to have in the end.
absl::Status HostNetwork::NoteLateDevices(const NetSnapshot& network) {
  const std::string of_new_ones = OfDevice("ipv6", "default", "accept_ra");
  std::set<int> links;
  for (const NetLink& link : network.links) links.insert(link.index);
  const std::set<int> before = std::exchange(known_links_, std::move(links));
  if (!HasMadeSysctl(of_new_ones)) return absl::OkStatus();
  for (const NetLink& link : network.links) {
    const std::string accept = OfDevice("ipv6", link.name, "accept_ra");
    if (before.contains(link.index) || HasMadeSysctl(accept)) continue;
    if (HostFiles().Read(accept).value_or("") != kAcceptRaAlways) continue;
    const absl::Status status =
        bring_up_.Make(Sysctl{accept, kAcceptRaUnlessForwarding, kAcceptRaAlways});
    if (!status.ok() && !absl::IsNotFound(status)) return status;
  }
  return absl::OkStatus();
}

// What is not in the journal yet; what is, and was set otherwise since, is set on the way.
absl::StatusOr<std::vector<HostChange>> HostNetwork::PrepareForwardingV6() {
  std::vector<HostChange> changes;
  for (const std::string& device : HostFiles().List("/proc/sys/net/ipv6/conf")) {
    if (device == "all") continue;
    const std::string accept = OfDevice("ipv6", device, "accept_ra");
    const bool to_be_set = HostFiles().Read(accept).value_or("") == kAcceptRaUnlessForwarding;
    if (to_be_set && HasMadeSysctl(accept)) {
      if (absl::Status status = SetSysctl(accept, kAcceptRaAlways); !status.ok()) return status;
    } else if (to_be_set) {
      changes.emplace_back(Sysctl{accept, kAcceptRaUnlessForwarding, kAcceptRaAlways});
    }
    const std::string own = OfDevice("ipv6", device, "forwarding");
    const std::string forwards = HostFiles().Read(own).value_or("0");
    if (forwards == "0" || HasMadeSysctl(own)) continue;
    changes.emplace_back(Sysctl{own, forwards, forwards});
  }
  return changes;
}

// For IPv6 there is but one switch for all, which turns every device's own with it, both ways; and
// a machine that forwards takes no routes from router advertisements unless it is told to. What
// that takes is one step of the journal, since a machine may have thousands of devices.
absl::Status HostNetwork::LetForwardV6() {
  constexpr int kTries = 3;
  const std::string of_all = OfDevice("ipv6", "all", "forwarding");
  const auto now = HostFiles().Read(of_all);
  if (!now.ok()) return now.status();
  if (*now != "0") return absl::OkStatus();
  absl::Status status;
  for (int i = 0; i < kTries; ++i) {
    auto changes = PrepareForwardingV6();
    if (!changes.ok()) return changes.status();
    if (!HasMadeSysctl(of_all)) changes->emplace_back(Sysctl{of_all, "0", "1"});
    status = bring_up_.Make(*changes);
    if (!absl::IsNotFound(status)) break;  // else a device has gone since it was looked at
  }
  return status.ok() ? SetSysctl(of_all, "1") : status;
}

// --- DNS ---

absl::Status HostNetwork::SetResolver(const Tunnel& tunnel) {
  const NetworkConfig& wanted = config_.network;
  if (!wanted.dns || !(tunnel.has_carried || wanted.kill_switch)) return absl::OkStatus();
  const ReplacedFile* file = ResolvConf();
  if (file == nullptr && IsResolvedUsed(kResolvConf)) return TellResolved(*wanted.dns);
  // Somebody else, such as a DHCP client, may have written it meanwhile.
  if (file != nullptr && host_.IsThere(*file).value_or(true)) return absl::OkStatus();
  const std::string text = ResolvConfText(*wanted.dns);
  const auto now = HostFiles().Read(kResolvConf);
  if (file == nullptr && now.ok() && now->starts_with(kWrittenByBraid)) {
    return absl::FailedPreconditionError(
        absl::StrCat("network.dns: ", kResolvConf,
                     " is another braid daemon's; give it to one of "
                     "them, or run \"braid cleanup\" if that daemon has died"));
  }
  return bring_up_.ReplaceFile(kResolvConf, text);
}

// Told again now and then, since others may have reverted it. The daemon's loop waits meanwhile, so
// who has not answered is left alone as long.
absl::Status HostNetwork::TellResolved(const DnsConfig& dns) {
  const auto link = static_cast<int>(if_nametoindex(config_.network.device.c_str()));
  const TimeNs now_ns = MonotonicNowNs();
  const bool is_early = now_ns < tell_resolved_ns_;
  if (is_early && (link == resolved_link_ || !resolved_problem_.ok())) return resolved_problem_;
  absl::Status status = SetResolvedServers(link, dns);
  resolved_link_ = status.ok() ? link : 0;
  const bool has_hung = absl::IsDeadlineExceeded(status);
  resolved_problem_ = has_hung ? status : absl::OkStatus();
  tell_resolved_ns_ = status.ok() || has_hung ? now_ns + kTellResolvedEveryNs : 0;
  return status;
}

const ReplacedFile* HostNetwork::ResolvConf() const {
  for (const HostChange& change : bring_up_.changes()) {
    if (const auto* file = std::get_if<ReplacedFile>(&change)) return file;
  }
  return nullptr;
}

std::string HostNetwork::ResolvConfBefore() const {
  const ReplacedFile* replaced = ResolvConf();
  if (replaced == nullptr) {
    return IsResolvedUsed(kResolvConf) ? HostFiles().Read(kResolvedUplinks).value_or("") : "";
  }
  // Somebody has written another one since, who knows better.
  if (!host_.IsThere(*replaced).value_or(false)) return "";
  if (replaced->link_target.empty()) return replaced->before;
  const std::filesystem::path target = std::filesystem::path("/etc") / replaced->link_target;
  return HostFiles().Read(target.string()).value_or("");
}

}  // namespace braid
