#include <algorithm>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "base/clock.h"
#include "base/limits.h"
#include "slowpath/diagnosis.h"
#include "slowpath/net_setup.h"

namespace braid {
namespace {

using Json = nlohmann::ordered_json;
using Verdict = Diagnosis::Verdict;

constexpr uint64_t kClockSlackNs = 60 * static_cast<uint64_t>(kSecondNs);

// Writes the findings of one group, in their order.
class Notes {
 public:
  Notes(std::string_view group, std::vector<Diagnosis>& to) : group_(group), to_(to) {}

  void Ok(std::string name, std::string found) { Add(std::move(name), Verdict::kOk, found, ""); }
  void Warn(std::string name, const std::string& found, const std::string& advice) {
    Add(std::move(name), Verdict::kWarn, found, advice);
  }
  void Fail(std::string name, const std::string& found, const std::string& advice) {
    Add(std::move(name), Verdict::kFail, found, advice);
  }
  void Unknown(std::string name, const std::string& found, const std::string& advice) {
    Add(std::move(name), Verdict::kUnknown, found, advice);
  }

 private:
  void Add(std::string name, Verdict verdict, const std::string& found, const std::string& advice) {
    to_.push_back({group_, std::move(name), verdict, found, advice});
  }

  const std::string_view group_;
  std::vector<Diagnosis>& to_;
};

// A daemon may run, and what is taken may be its own.
bool IsDaemonHidden(const TunnelState& tunnel) { return absl::IsPermissionDenied(tunnel.daemon); }

bool IsServer(const TunnelState& tunnel) { return tunnel.config->role == Role::kServer; }

// Files.

void JudgeConfiguration(const TunnelState& tunnel, std::vector<Diagnosis>& to) {
  Notes notes("configuration", to);
  for (const Mistake& mistake : tunnel.mistakes) {
    const bool is_hidden = mistake.what.find("ermission denied") != std::string::npos;
    const std::string what = DescribeMistake(tunnel.file, mistake);
    is_hidden ? notes.Unknown("file", what, kLookAsRoot)
              : notes.Fail("file", what, "mend it, and look again: braid check --config FILE");
  }
  for (const Mistake& warning : tunnel.warnings) {
    notes.Warn("file", DescribeMistake(tunnel.file, warning), "");
  }
  if (tunnel.mistakes.empty()) notes.Ok("file", tunnel.file + " and its keys are good");
}

void JudgeStateFolder(const TunnelState& tunnel, std::vector<Diagnosis>& to) {
  Notes notes("configuration", to);
  const std::string& folder = tunnel.config->security.state_dir;
  if (tunnel.state_dir.ok()) {
    notes.Ok("state folder", folder + " can be written to");
  } else if (!tunnel.is_root) {
    notes.Unknown("state folder", folder + ": " + Why(tunnel.state_dir) + ", for this user",
                  kLookAsRoot);
  } else {
    notes.Warn("state folder", folder + ": " + Why(tunnel.state_dir),
               "let the daemon write there, or choose another security.state_dir: without it "
               "handshakes depend on the clock alone, and changes to this machine are refused");
  }
  if (tunnel.kept_counter && *tunnel.kept_counter > tunnel.wall_ns + kClockSlackNs) {
    const uint64_t ahead_s = (*tunnel.kept_counter - tunnel.wall_ns) / 1'000'000'000;
    notes.Warn("clock", absl::StrCat("is ", ahead_s, " s behind the last handshake that was made"),
               "set it right: timedatectl; handshakes go on counting, so the tunnel works");
  }
  if (tunnel.leftovers > 0 && !tunnel.status) {
    notes.Warn("leftovers",
               absl::StrCat(tunnel.leftovers, " changes to this machine of a daemon that died"),
               "take them back: braid cleanup; the next start does, too");
  }
}

// By what is in nftables, not by what a file says alone.
void JudgeKillSwitch(const TunnelState& tunnel, std::vector<Diagnosis>& to) {
  Notes notes("network", to);
  constexpr char kName[] = "kill switch";
  if (!tunnel.kill_switch.ok()) {
    const absl::Status& why = tunnel.kill_switch.status();
    if (absl::IsDataLoss(why)) return notes.Fail(kName, Why(why), "start the daemon");
    if (!tunnel.config->network.kill_switch && tunnel.is_root) return;  // nobody has asked for it
    return notes.Unknown(kName, Why(why), tunnel.is_root ? "" : kLookAsRoot);
  }
  const KillSwitchState& state = *tunnel.kill_switch;
  const std::string devices = absl::StrJoin(state.kept_for, ", ");
  if (!state.is_loaded && !state.kept_for.empty()) {
    return notes.Fail(kName,
                      "is to be on for " + devices +
                          ", but its nftables rules are gone: what it is "
                          "to keep in leaves this machine",
                      "load it: braid kill-switch load");
  }
  if (!state.is_loaded || tunnel.status) return;
  notes.Warn(kName,
             devices.empty()
                 ? "is on, for the tunnels of another state directory"
                 : "is on, and this daemon does not run: nothing leaves beside " + devices,
             "start the daemon, or lift it: braid cleanup --all");
}

// The daemon, and what it needs of this machine.

void JudgeDaemon(const TunnelState& tunnel, std::vector<Diagnosis>& to) {
  Notes notes("daemon", to);
  const std::string& socket = tunnel.config->control.socket;
  if (tunnel.status) {
    notes.Ok("daemon", absl::StrCat("runs on ", tunnel.config->network.device, ", as process ",
                                    tunnel.status->value("pid", 0)));
    const auto warnings = tunnel.status->find("warnings");
    if (warnings == tunnel.status->end() || !warnings->is_array()) return;
    for (const Json& warning : *warnings) {
      if (warning.is_string()) notes.Warn("warning", warning.get<std::string>(), "");
    }
  } else if (IsDaemonHidden(tunnel)) {
    notes.Unknown("daemon", Why(tunnel.daemon), kLookAsRoot);
  } else if (absl::IsUnavailable(tunnel.daemon) || absl::IsNotFound(tunnel.daemon)) {
    notes.Ok("daemon", "does not run, or not with " + socket);
  } else {
    notes.Warn("daemon", Why(tunnel.daemon), "");
  }
}

void JudgeDevice(const TunnelState& tunnel, std::vector<Diagnosis>& to) {
  Notes notes("network", to);
  const std::string& device = tunnel.config->network.device;
  if (tunnel.status) {
    notes.Ok("device", device + " is the daemon's");
  } else if (tunnel.network.Find(device) != nullptr && IsDaemonHidden(tunnel)) {
    notes.Unknown("device", device + " exists; whose it is cannot be told", kLookAsRoot);
  } else if (tunnel.network.Find(device) != nullptr) {
    notes.Fail("device", device + " exists, and is not that of a daemon with this configuration",
               "stop the program that made it, remove it (ip link del " + device +
                   "), or choose another network.device");
  } else {
    notes.Ok("device", device + " is free");
  }
}

// Networks of other devices that the tunnel's own addresses lie in, or the other way round.
void JudgeAddresses(const TunnelState& tunnel, std::vector<Diagnosis>& to) {
  Notes notes("network", to);
  bool conflict = false;
  for (const IpPrefix& inner : tunnel.config->network.addresses) {
    for (const NetAddress& one : tunnel.network.addresses) {
      const NetLink* link = tunnel.network.Find(one.link);
      if (link == nullptr || link->name == tunnel.config->network.device) continue;
      if (!inner.Network().Overlaps(one.on_link)) continue;
      conflict = true;
      notes.Fail(
          "addresses",
          absl::StrCat(inner.ToString(), " overlaps ", one.on_link.ToString(), " of ", link->name),
          "choose other inner addresses, at both ends");
    }
  }
  if (!conflict) notes.Ok("addresses", "none is in another network of this machine");
}

void JudgeListens(const TunnelState& tunnel, std::vector<Diagnosis>& to) {
  Notes notes("network", to);
  for (const auto& [listen, status] : tunnel.listens) {
    const std::string name = absl::StrCat("port ", listen.port);
    if (status.ok()) {
      notes.Ok(name, absl::StrCat("UDP ", listen.ToString(),
                                  tunnel.status ? " is the daemon's" : " is free"));
      continue;
    }
    if (absl::IsAlreadyExists(status) && IsDaemonHidden(tunnel)) {
      notes.Unknown(name, Why(status) + ", or by the daemon", kLookAsRoot);
      continue;
    }
    notes.Fail(name, Why(status),
               absl::IsAlreadyExists(status)
                   ? absl::StrCat("find who has it: ss -ulpn sport = :", listen.port)
                   : "correct tunnel.listen, or give this machine that address");
  }
}

// A client's way to its servers.

void JudgeNames(const TunnelState& tunnel, std::vector<Diagnosis>& to) {
  Notes notes("names", to);
  for (const auto& [host, found] : tunnel.names) {
    if (found.ok()) {
      notes.Ok(host, absl::StrJoin(*found, ", ", [](std::string* text, const IpAddress& one) {
                 absl::StrAppend(text, one.ToString());
               }));
    } else {
      notes.Fail(host, Why(found.status()),
                 "correct the name, or /etc/resolv.conf; an address as endpoint needs no DNS");
    }
  }
}

// What fits into one packet of the tunnel over that link.
int InnerMtu(int link_mtu, const Endpoint& remote) {
  return link_mtu - OuterHeaderBytes(remote.address.is_v6()) - static_cast<int>(kSealOverheadBytes);
}

// A path in the running daemon's status; null where it tells of none.
const Json* FindInStatus(const Json& status, const ProbedPath& path, bool& established) {
  const auto find = [](const Json& object, const char* list, const std::string& name) {
    const Json* found = nullptr;
    const auto all = object.find(list);
    if (all == object.end() || !all->is_array()) return found;
    for (const Json& one : *all) {
      if (one.is_object() && one.value("name", "") == name) found = &one;
    }
    return found;
  };
  const Json* peer = find(status, "peers", path.peer);
  established = peer != nullptr && peer->value("established", false);
  return peer == nullptr ? nullptr : find(*peer, "paths", path.path);
}

void PathMtu(const TunnelState& tunnel, const ProbedPath& path, const Json* in_status, Notes& notes,
             const std::string& name) {
  if (!path.link_mtu || !path.remote) return;
  const int inner = InnerMtu(*path.link_mtu, *path.remote);
  const std::string link = absl::StrCat("the link's ", *path.link_mtu, " bytes carry packets of ");
  if (inner < static_cast<int>(kMinMtu)) {
    notes.Fail(name, absl::StrCat(link, inner),
               absl::StrCat("raise the link's MTU: a tunnel needs packets of ", kMinMtu));
    return;
  }
  const std::optional<int>& wanted = tunnel.config->network.mtu;
  if (wanted && *wanted > inner) {
    notes.Warn(name, absl::StrCat(link, inner, ", but network.mtu is ", *wanted),
               "leave network.mtu out: braid finds what all paths carry");
    return;
  }
  const auto found = in_status == nullptr ? Json::const_iterator() : in_status->find("mtu");
  const bool is_known = in_status != nullptr && found != in_status->end() && found->is_number();
  // The other end may count with the larger header of IPv6.
  constexpr int kSlack = OuterHeaderBytes(true) - OuterHeaderBytes(false);
  if (is_known && found->get<int>() < inner - kSlack) {
    notes.Warn(
        name, absl::StrCat("packets of ", found->get<int>(), " come through, though ", link, inner),
        "something on the way has a smaller MTU; braid keeps to what comes through");
    return;
  }
  notes.Ok(name, absl::StrCat(link, inner));
}

constexpr char kNoAnswer[] =
    "see to it that the server runs, that firewalls and routers on the way let this UDP port in, "
    "and that the server has this client's public key (braid pubkey < KEY_FILE), the same "
    "preshared key, and nobody else with this private key";

void Answer(const ProbedPath& path, Notes& notes, const std::string& name) {
  if (absl::IsCancelled(path.answer.status())) return;
  const std::string remote = path.remote->ToString();
  if (!path.answer.ok()) {
    const absl::Status& why = path.answer.status();
    if (absl::IsPermissionDenied(why)) {
      notes.Unknown(name, Why(why), kLookAsRoot);
    } else if (absl::IsDeadlineExceeded(why)) {
      notes.Fail(name, Why(why), kNoAnswer);
    } else {
      notes.Fail(name, Why(why),
                 absl::IsUnavailable(why) ? "start the server, or correct the endpoint's port"
                                          : "see to this machine's routes and firewall");
    }
  } else if (path.answer->busy) {
    notes.Warn(name, remote + " answers, but is flooded with handshakes", "");
  } else {
    notes.Ok(name, absl::StrFormat("%s shakes hands, in %.1f ms", remote, path.answer->rtt_ms));
  }
}

void ShowStatusOf(const Json& in_status, bool established, Notes& notes, const std::string& name) {
  const std::string state = in_status.value("state", "");
  const auto rtt = in_status.find("rtt_ms");
  const std::string rtt_text = rtt != in_status.end() && rtt->is_number()
                                   ? absl::StrFormat(", in %.1f ms", rtt->get<double>())
                                   : "";
  if (!established) {
    notes.Fail(name, "the daemon gets no answer", kNoAnswer);
  } else if (state == "down") {
    notes.Fail(name, "the daemon has it down, while others reach the server",
               "see what is between: ping the server through this link, and let its UDP port pass");
  } else {
    notes.Ok(name, "the daemon has it " + state + rtt_text);
  }
}

void JudgePaths(const TunnelState& tunnel, std::vector<Diagnosis>& to) {
  Notes notes("paths", to);
  if (!IsServer(tunnel) && tunnel.paths.empty()) {
    notes.Fail("paths", "no interface has a default route",
               "connect this machine, or name its links in tunnel.paths");
  }
  const bool has_one_peer = tunnel.config->tunnel.peers.size() < 2;
  for (const ProbedPath& path : tunnel.paths) {
    const std::string name = has_one_peer ? path.path : absl::StrCat(path.path, " → ", path.peer);
    if (!path.usable) {
      notes.Fail(name, path.problem, "connect the link, or correct the path");
      continue;
    }
    if (!path.problem.empty()) notes.Warn(name, path.problem, "");
    if (!path.remote) {
      notes.Fail(name, "none of the server's addresses is known, or of this path's family",
                 "see the names above; give an address of the same family as endpoint");
      continue;
    }
    if (!path.link_mtu) {
      notes.Fail(name,
                 absl::StrCat("no route to ", path.remote->ToString(),
                              path.device.empty() ? "" : " through " + path.device),
                 absl::StrCat("see \"ip route get ", path.remote->address.ToString(), "\""));
      continue;
    }
    bool established = false;
    const Json* in_status =
        tunnel.status ? FindInStatus(*tunnel.status, path, established) : nullptr;
    if (in_status != nullptr) ShowStatusOf(*in_status, established, notes, name);
    Answer(path, notes, name);
    PathMtu(tunnel, path, in_status, notes, name + " mtu");
  }
}

void JudgePeers(const TunnelState& tunnel, std::vector<Diagnosis>& to) {
  if (!IsServer(tunnel) || !tunnel.status) return;
  size_t established = 0, all = 0;
  const auto peers = tunnel.status->find("peers");
  for (const Json& peer : peers == tunnel.status->end() ? Json::array() : *peers) {
    ++all;
    established += peer.is_object() && peer.value("established", false) ? 1 : 0;
  }
  Notes("daemon", to).Ok("peers", absl::StrCat(established, " of ", all, " are connected"));
}

void JudgeDns(const TunnelState& tunnel, std::vector<Diagnosis>& to) {
  Notes notes("names", to);
  if (!tunnel.config->network.dns) return;
  if (!tunnel.status) {
    notes.Unknown("network.dns", "is asked through the tunnel, and no daemon runs", "");
  }
  for (const auto& [server, status] : tunnel.dns) {
    const std::string name = "dns " + server.ToString();
    if (status.ok()) {
      notes.Ok(name, "answers");
    } else {
      notes.Fail(name, Why(status),
                 "correct network.dns, or start a resolver there that answers inner addresses");
    }
  }
}

using JudgeTunnel = void (*)(const TunnelState& tunnel, std::vector<Diagnosis>& to);

// In groups; those behind the first need a configuration without mistakes.
constexpr JudgeTunnel kJudges[] = {JudgeStateFolder, JudgeDaemon,     JudgePeers,   JudgeDevice,
                                   JudgeAddresses,   JudgeKillSwitch, JudgeListens, JudgeNames,
                                   JudgeDns,         JudgePaths};

}  // namespace

std::vector<Diagnosis> DiagnoseTunnel(const TunnelState& tunnel) {
  std::vector<Diagnosis> all;
  JudgeConfiguration(tunnel, all);
  if (!tunnel.config) return all;
  for (const JudgeTunnel judge : kJudges) judge(tunnel, all);
  return all;
}

}  // namespace braid
