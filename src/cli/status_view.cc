#include "cli/status_view.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/str_format.h"
#include "cli/drop_meaning.h"
#include "cli/json_fields.h"
#include "cli/text_layout.h"
#include "cli/tint.h"
#include "cli/units.h"

namespace braid {
namespace {

using Json = nlohmann::ordered_json;

constexpr size_t kMaxBlocks = 4;  // more peers than these have a line each
constexpr size_t kMaxPeers = 12;  // that are shown, unless all are asked for

// Writes the view from top to bottom.
class View {
 public:
  explicit View(const StatusViewOptions& options) : options_(options) {}

  std::string Take() && { return std::move(out_); }
  void Head(const Json& status);
  void Peers(const Json& peers);
  void Workers(const Json& workers);
  void Drops(const Json& drops);
  void Warnings(const Json& warnings);

 private:
  void Details(const Json& status);
  void Peer(const Json& peer);
  void PeerTable(const std::vector<const Json*>& peers);
  void PathTable(const Json& paths, bool with_addresses);
  void PathNotes(const Json& path);
  void PathAddresses(const Json& path);
  std::string Tinted(Tint tint, const std::string& text) const {
    return braid::Tinted(options_.colour, tint, text);
  }

  const StatusViewOptions options_;
  std::string out_;
};

void View::Head(const Json& status) {
  const std::string state = Fit(OrNothing(Text(status, "state")), 12);
  const auto uptime = Number(status, "uptime_s");
  const std::string rest = Join(
      {Text(status, "mode"), Text(status, "device"), uptime ? "up " + ShowDuration(uptime) : "",
       Text(status, "version").empty() ? "" : "version " + Text(status, "version")},
      "   ");
  out_ += Tinted(Tint::kBold, "braid") + " " + Tinted(TintOfState(state), state);
  if (!rest.empty()) out_ += "   " + Fit(rest, kColumns - 6 - Width(state) - 3);
  out_ += '\n';
  Details(status);
}

std::string Network(const Json& network) {
  std::vector<std::string> parts;
  if (const Json& addresses = Field(network, "addresses"); addresses.is_array()) {
    for (const auto& address : addresses) {
      if (address.is_string()) parts.push_back(Printable(address.get<std::string>()));
    }
  }
  if (const auto mtu = Number(network, "mtu")) parts.push_back(absl::StrFormat("mtu %.0f", *mtu));
  return Join(parts, ", ");
}

std::string Engine(const Json& status) {
  std::vector<std::string> parts = {Text(status, "io"), Text(status, "aead")};
  if (const Json& workers = Field(status, "workers"); workers.is_array()) {
    const size_t count = workers.size();
    parts.push_back(absl::StrFormat("%d %s", count, count == 1 ? "worker" : "workers"));
  }
  return Join(parts, ", ");
}

std::string Process(const Json& status) {
  const auto pid = Number(status, "pid");
  const auto memory = Number(status, "memory_rss_bytes");
  return Join({pid ? absl::StrFormat("pid %.0f", *pid) : "",
               memory ? ShowBytes(memory) + " of memory" : ""},
              ", ");
}

// "vnet_hdr tso, steering bpf; without udp_gro"
std::string Offloads(const Json& offloads) {
  if (!offloads.is_object()) return "";
  std::vector<std::string> on, off, named;
  for (const auto& [name, value] : offloads.items()) {
    if (value.is_boolean()) (value.get<bool>() ? on : off).push_back(Printable(name));
    if (value.is_string()) named.push_back(Printable(name + " " + value.get<std::string>()));
  }
  const std::string used = Join({Join(on, " "), Join(named, ", ")}, ", ");
  return Join({used, off.empty() ? "" : "without " + Join(off, " ")}, "; ");
}

bool IsEstablished(const Json& peer) { return IsTrue(peer, "established"); }

// "1,204, 1,190 established"; nothing of a single one, which tells it itself.
std::string PeerCount(const Json& peers) {
  if (!peers.is_array() || peers.size() < 2) return "";
  const auto established = std::count_if(peers.begin(), peers.end(), IsEstablished);
  return ShowGrouped(peers.size()) + ", " + ShowGrouped(static_cast<uint64_t>(established)) +
         " established";
}

void View::Details(const Json& status) {
  std::vector<std::pair<const char*, std::string>> lines = {
      {"network", Network(Field(status, "network"))}};
  if (options_.verbose) {
    lines.emplace_back("engine", Engine(status));
    lines.emplace_back("offloads", Offloads(Field(status, "offloads")));
    lines.emplace_back("process", Process(status));
  }
  lines.emplace_back("peers", PeerCount(Field(status, "peers")));
  for (const auto& [name, text] : lines) {
    if (text.empty()) continue;
    out_ += Wrap(absl::StrFormat("  %-10s", name), std::string(12, ' '), text);
  }
}

double RateOf(const Json& peer) {
  double rate = 0;
  const Json& paths = Field(peer, "paths");
  if (!paths.is_array()) return rate;
  for (const auto& path : paths) rate += Number(path, "rate_mbps").value_or(0);
  return rate;
}

double BytesOf(const Json& peer) {
  return Number(peer, "rx_bytes").value_or(0) + Number(peer, "tx_bytes").value_or(0);
}

std::vector<const Json*> BusiestFirst(const Json& peers) {
  struct Load {
    double rate, bytes;
    const Json* peer;
  };
  std::vector<Load> loads;
  for (const auto& peer : peers) loads.push_back({RateOf(peer), BytesOf(peer), &peer});
  std::stable_sort(loads.begin(), loads.end(), [](const Load& a, const Load& b) {
    return std::pair(a.rate, a.bytes) > std::pair(b.rate, b.bytes);
  });
  std::vector<const Json*> sorted;
  for (const Load& load : loads) sorted.push_back(load.peer);
  return sorted;
}

void View::Peers(const Json& peers) {
  if (!peers.is_array()) return;
  if (peers.empty()) out_ += "\nno peers\n";
  const bool has_all = options_.all || peers.size() <= kMaxPeers;
  std::vector<const Json*> shown;
  if (has_all) {
    for (const auto& peer : peers) shown.push_back(&peer);
  } else {
    shown = BusiestFirst(peers);
    shown.resize(kMaxPeers);
  }
  if (peers.size() > kMaxBlocks && !options_.verbose) {
    PeerTable(shown);
  } else {
    for (const Json* peer : shown) Peer(*peer);
  }
  if (!has_all) {
    out_ += Tinted(Tint::kDim, "  the busiest; " + ShowGrouped(peers.size() - shown.size()) +
                                   " more with --all") +
            '\n';
  }
}

void View::PeerTable(const std::vector<const Json*>& peers) {
  constexpr size_t kNameColumns = 20;
  constexpr size_t kStateColumns = 15;
  const auto row = [](const std::array<std::string, 4>& cells) {
    constexpr std::array<size_t, 4> kWidths = {5, 12, 10, 10};
    std::string text;
    for (size_t i = 0; i < cells.size(); ++i)
      text += ' ' + PadLeft(Fit(cells[i], kWidths[i]), kWidths[i]);
    return text;
  };
  out_ += '\n' +
          Tinted(Tint::kDim, "  " + PadRight("peer", kNameColumns) + " " +
                                 PadRight("state", kStateColumns) +
                                 row({"paths", "rate", "received", "sent"})) +
          '\n';
  for (const Json* peer : peers) {
    const bool is_up = IsEstablished(*peer);
    const Json& paths = Field(*peer, "paths");
    out_ += "  " + PadRight(Fit(OrNothing(Text(*peer, "name")), kNameColumns), kNameColumns) + " " +
            Tinted(is_up ? Tint::kGood : Tint::kBad,
                   PadRight(is_up ? "established" : "not established", kStateColumns)) +
            row({paths.is_array() ? ShowGrouped(paths.size()) : kNothing, ShowRate(RateOf(*peer)),
                 ShowBytes(Number(*peer, "rx_bytes")), ShowBytes(Number(*peer, "tx_bytes"))}) +
            '\n';
  }
}

void View::Peer(const Json& peer) {
  const bool is_up = IsEstablished(peer);
  const std::string name = Fit(OrNothing(Text(peer, "name")), 24);
  const std::string age = ShowDuration(Number(peer, "last_handshake_s"));
  const std::string handshake = age == kNothing ? "no handshake yet" : "handshake " + age + " ago";
  out_ += '\n' + Tinted(Tint::kBold, "peer " + name) + "   " +
          Tinted(is_up ? Tint::kGood : Tint::kBad, is_up ? "established" : "not established") +
          "   " + handshake + '\n';
  if (options_.verbose) {
    const std::string key = Text(peer, "public_key");
    if (!key.empty()) out_ += "  " + Tinted(Tint::kDim, Fit("key " + key, kColumns - 2)) + '\n';
    out_ += Wrap("  ", "  ",
                 Join({"cipher " + OrNothing(Text(peer, "cipher")),
                       "received " + ShowBytes(Number(peer, "rx_bytes")),
                       "sent " + ShowBytes(Number(peer, "tx_bytes"))},
                      ", "));
  }
  PathTable(Field(peer, "paths"), options_.verbose || !is_up);
}

void View::PathTable(const Json& paths, bool with_addresses) {
  if (!paths.is_array() || paths.empty()) return;
  constexpr size_t kNameColumns = 12;
  constexpr size_t kStateColumns = 8;
  const auto row = [](const std::array<std::string, 5>& cells) {
    constexpr std::array<size_t, 5> kWidths = {10, 7, 13, 11, 11};
    std::string text;
    for (size_t i = 0; i < cells.size(); ++i)
      text += ' ' + PadLeft(Fit(cells[i], kWidths[i]), kWidths[i]);
    return text;
  };
  out_ += Tinted(Tint::kDim, "  " + PadRight("path", kNameColumns) + " " +
                                 PadRight("state", kStateColumns) +
                                 row({"rtt", "loss", "rate", "received", "sent"})) +
          '\n';
  for (const auto& path : paths) {
    const std::string state = Fit(OrNothing(Text(path, "state")), kStateColumns);
    out_ += "  " + PadRight(Fit(OrNothing(Text(path, "name")), kNameColumns), kNameColumns) + " " +
            Tinted(TintOfState(state), PadRight(state, kStateColumns)) +
            row({ShowMilliseconds(Number(path, "rtt_ms")), ShowLoss(Number(path, "loss")),
                 ShowRate(Number(path, "rate_mbps")), ShowBytes(Number(path, "rx_bytes")),
                 ShowBytes(Number(path, "tx_bytes"))}) +
            '\n';
    PathNotes(path);
    if (with_addresses) PathAddresses(path);
  }
}

constexpr size_t kPathIndent = 4;

// What is wrong with it, and what its quota says.
void View::PathNotes(const Json& path) {
  const std::string margin(kPathIndent, ' ');
  const std::string problem = Text(path, "problem");
  if (!problem.empty()) out_ += Wrap(margin, margin, problem);
  if (const Json& quota = Field(path, "quota"); quota.is_object()) {
    out_ += Wrap(margin, margin,
                 "quota " + ShowGigabytes(Number(quota, "used_bytes")) + " of " +
                     ShowGigabytes(Number(quota, "limit_bytes")) + " used, until " +
                     OrNothing(Text(quota, "resets")));
  }
}

// "local → remote", on two lines where one has no room for both.
void View::PathAddresses(const Json& path) {
  const std::string local = Text(path, "local");
  const std::string remote = Text(path, "remote");
  const std::string interface = Text(path, "interface");
  if (local.empty() && remote.empty()) return;
  const std::string margin(kPathIndent, ' ');
  const auto mtu = Number(path, "mtu");
  const std::string line = (interface.empty() ? "" : interface + "  ") + OrNothing(local) + " → " +
                           OrNothing(remote) + (mtu ? absl::StrFormat("  mtu %.0f", *mtu) : "");
  if (kPathIndent + Width(line) <= kColumns) {
    out_ += margin + Tinted(Tint::kDim, line) + '\n';
    return;
  }
  out_ += margin + Tinted(Tint::kDim, Fit(OrNothing(local), kColumns - kPathIndent)) + '\n';
  out_ += margin + Tinted(Tint::kDim, Fit("→ " + OrNothing(remote), kColumns - kPathIndent)) + '\n';
}

// "8: 0 2 4 6 8 10 12 14"
std::string Lanes(const Json& lanes) {
  if (!lanes.is_array() || lanes.empty()) return kNothing;
  std::string text = absl::StrFormat("%d:", lanes.size());
  for (const auto& lane : lanes) {
    if (lane.is_number_unsigned()) text += absl::StrFormat(" %d", lane.get<uint64_t>());
  }
  return text;
}

void View::Workers(const Json& workers) {
  if (!workers.is_array() || workers.empty()) return;
  const auto row = [](const std::array<std::string, 5>& cells, const std::string& lanes) {
    constexpr std::array<size_t, 5> kWidths = {6, 3, 13, 13, 12};
    std::string text = " ";
    for (size_t i = 0; i < cells.size(); ++i)
      text += ' ' + PadLeft(Fit(cells[i], kWidths[i]), kWidths[i]);
    text += "  ";
    return text + Fit(lanes, kColumns - Width(text));
  };
  out_ += '\n' +
          Tinted(Tint::kDim,
                 row({"worker", "cpu", "rx packets", "tx packets", "handed over"}, "lanes")) +
          '\n';
  for (size_t i = 0; i < workers.size(); ++i) {
    const Json& worker = workers[i];
    out_ += row({std::to_string(i), ShowCount(Number(worker, "cpu")),
                 ShowCount(Number(worker, "rx_packets")), ShowCount(Number(worker, "tx_packets")),
                 ShowCount(Number(worker, "handed_over"))},
                Lanes(Field(worker, "lanes"))) +
            '\n';
  }
}

void View::Drops(const Json& drops) {
  if (!drops.is_object()) return;
  std::vector<std::pair<uint64_t, std::string>> counted;
  for (const auto& [name, count] : drops.items()) {
    if (!count.is_number_unsigned() || count == 0) continue;
    counted.emplace_back(count.get<uint64_t>(), Fit(Printable(name), 46));
  }
  if (counted.empty()) return;
  std::stable_sort(counted.begin(), counted.end(),
                   [](const auto& a, const auto& b) { return a.first > b.first; });
  size_t widest = 0;
  for (const auto& [count, name] : counted) widest = std::max(widest, Width(name));
  out_ += '\n' + Tinted(Tint::kBold, "drops") + '\n';
  const size_t digits = Width(ShowGrouped(counted.front().first));
  for (const auto& [count, name] : counted) {
    out_ += "  " + PadRight(name, widest) + "  " + PadLeft(ShowGrouped(count), digits) + '\n';
    const std::string meaning = options_.verbose ? DropMeaning(name) : "";
    if (!meaning.empty()) out_ += Tinted(Tint::kDim, Wrap("    ", "    ", meaning));
  }
}

void View::Warnings(const Json& warnings) {
  if (!warnings.is_array() || warnings.empty()) return;
  out_ += '\n' + Tinted(Tint::kFair, "warnings") + '\n';
  for (const auto& warning : warnings) {
    if (warning.is_string()) {
      out_ += Wrap("  - ", "    ", Printable(warning.get<std::string>()));
    }
  }
}

}  // namespace

std::string RenderStatus(const Json& status, const StatusViewOptions& options) {
  View view(options);
  view.Head(status);
  view.Peers(Field(status, "peers"));
  if (options.verbose) view.Workers(Field(status, "workers"));
  view.Drops(Field(status, "drops"));
  view.Warnings(Field(status, "warnings"));
  return std::move(view).Take();
}

}  // namespace braid
