// Keeps this machine's network as the configuration wants it around the tunnel, while links come
// and go: kill switch, NAT and forwarding, routes, reverse path filters, DNS. All of it is in the
// journal and goes when the daemon does, except for the kill switch, which only `braid cleanup
// --all` lifts.
#pragma once

#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/clock.h"
#include "slowpath/bring_up.h"
#include "slowpath/config.h"
#include "slowpath/net_snapshot.h"
#include "slowpath/nft.h"

namespace braid {

class HostNetwork {
 public:
  // What is not in the network as the kernel shows it.
  struct Tunnel {
    std::vector<std::string> path_devices;  // that paths leave by now
    bool has_carried = false;               // a session was established, ever
  };

  // The configuration and the host outlive it.
  HostNetwork(const Config& config, Host& host, Journal journal, BringUp::Report report)
      : config_(config),
        host_(host),
        report_(report),
        bring_up_(host, std::move(journal), std::move(report)) {}

  // Makes what is wanted and not there, also what somebody has taken away, and takes back what is
  // there and no longer wanted. After an error what was done stands: another call goes on from
  // there, TakeBack() ends it. To be called when the network has changed, and now and then. It may
  // wait for systemd-resolved, two seconds in a minute.
  [[nodiscard]] absl::Status Follow(const NetSnapshot& network, const Tunnel& tunnel);
  // All that this one has done, or one before it that has died.
  [[nodiscard]] absl::Status TakeBack();
  // The configuration has another NAT or DNS than before: takes back what Follow() has done for
  // that and would not compare.
  [[nodiscard]] absl::Status OnConfig(const NetworkConfig& before);

  // The resolv.conf of this machine without the tunnel; empty: the one that is there.
  std::string ResolvConfBefore() const;

 private:
  absl::Status ChooseTable();
  bool HasMadeSysctl(const std::string& path) const;
  absl::Status HealKillSwitch();
  absl::Status Heal(const std::vector<HostChange>& plan);
  void TellOfV6(bool is_left);
  absl::Status ExchangeTables(const std::vector<HostChange>& wanted);
  absl::Status Reconcile(const std::vector<HostChange>& wanted);
  absl::Status SetSysctl(const std::string& path, const std::string& value);
  absl::Status LetForward(const NetSnapshot& network);
  absl::Status NoteLateDevices(const NetSnapshot& network);
  absl::StatusOr<std::vector<HostChange>> PrepareForwardingV6();
  absl::Status LetForwardV6();
  absl::Status FilterLoosely(const std::vector<std::string>& devices);
  absl::Status SetResolver(const Tunnel& tunnel);
  absl::Status TellResolved(const DnsConfig& dns);
  const ReplacedFile* ResolvConf() const;
  NatGuard Guard(const NetSnapshot& network) const;

  const Config& config_;
  Host& host_;
  const BringUp::Report report_;
  BringUp bring_up_;
  uint32_t table_ = 0;             // 0: not chosen yet
  std::set<int> known_links_;      // by index, since forwarding was looked at last
  bool is_v6_left_ = false;        // and was told
  int resolved_link_ = 0;          // that systemd-resolved was told of; 0: none
  TimeNs tell_resolved_ns_ = 0;    // not before, but for another link
  absl::Status resolved_problem_;  // that it did not answer, the last time
};

}  // namespace braid
