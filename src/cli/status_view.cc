#include "cli/status_view.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/str_format.h"
#include "cli/text_layout.h"

namespace braid {
namespace {

using Json = nlohmann::ordered_json;

constexpr char kNothing[] = "-";

enum class Tint : uint8_t { kPlain, kBold, kDim, kGood, kFair, kBad };

// Fields. A daemon of another version may lack some, or mean something else by them.

const Json& Field(const Json& object, const char* name) {
  static const Json kNull;
  if (!object.is_object()) return kNull;
  const auto found = object.find(name);
  return found == object.end() ? kNull : *found;
}

std::string Text(const Json& object, const char* name) {
  const Json& value = Field(object, name);
  return value.is_string() ? Printable(value.get<std::string>()) : "";
}

std::optional<double> Number(const Json& object, const char* name) {
  const Json& value = Field(object, name);
  if (!value.is_number()) return std::nullopt;
  const double number = value.get<double>();
  return std::isfinite(number) ? std::optional(number) : std::nullopt;
}

std::string OrNothing(std::string text) { return text.empty() ? kNothing : text; }

// Units.

std::string Bytes(std::optional<double> bytes) {
  if (!bytes || *bytes < 0) return kNothing;
  constexpr std::array<const char*, 7> kUnits = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  double value = *bytes;
  size_t unit = 0;
  while (value >= 1023.95 && unit + 1 < kUnits.size()) {
    value /= 1024;
    ++unit;
  }
  return absl::StrFormat("%.*f %s", unit == 0 ? 0 : 1, value, kUnits[unit]);
}

// As quotas are given.
std::string Gigabytes(std::optional<double> bytes) {
  if (!bytes || *bytes < 0) return kNothing;
  return absl::StrFormat("%.*f GB", *bytes < 1e9 ? 3 : 1, *bytes / 1e9);
}

// The two largest units: "3d 4h", "12m 5s", "7s".
std::string Duration(std::optional<double> seconds) {
  if (!seconds || *seconds < 0 || *seconds > 1e12) return kNothing;
  constexpr std::pair<int64_t, char> kUnits[] = {{86400, 'd'}, {3600, 'h'}, {60, 'm'}, {1, 's'}};
  auto left = static_cast<int64_t>(*seconds);
  std::string out;
  for (const auto& [size, name] : kUnits) {
    const int64_t count = std::exchange(left, left % size) / size;
    if (!out.empty()) return count == 0 ? out : out + absl::StrFormat(" %d%c", count, name);
    if (count > 0 || size == 1) out = absl::StrFormat("%d%c", count, name);
  }
  return out;
}

std::string Milliseconds(std::optional<double> ms) {
  if (!ms || *ms < 0) return kNothing;
  return absl::StrFormat("%.*f ms", *ms < 9.995 ? 2 : *ms < 999.95 ? 1 : 0, *ms);
}

std::string Loss(std::optional<double> share) {
  if (!share || *share < 0) return kNothing;
  if (*share == 0) return "0 %";
  // What is lost is never rounded to nothing.
  return *share < 0.0005 ? "<0.1 %" : absl::StrFormat("%.1f %%", *share * 100);
}

std::string Rate(std::optional<double> mbps) {
  if (!mbps || *mbps < 0) return kNothing;
  if (*mbps >= 999.95) return absl::StrFormat("%.2f Gbit/s", *mbps / 1000);
  return absl::StrFormat("%.1f Mbit/s", *mbps);
}

std::string Grouped(uint64_t count) {
  std::string digits = absl::StrFormat("%d", count);
  for (size_t at = digits.size(); at > 3;) digits.insert(at -= 3, ",");
  return digits;
}

std::string Count(std::optional<double> count) {
  if (!count || *count < 0 || *count > 1e18) return kNothing;
  return Grouped(static_cast<uint64_t>(*count));
}

Tint TintOfState(std::string_view state) {
  if (state == "up" || state == "running" || state == "ready") return Tint::kGood;
  if (state == "down" || state == "failed") return Tint::kBad;
  return Tint::kFair;
}

// Writes the view from top to bottom.
class View {
 public:
  explicit View(bool colour) : colour_(colour) {}

  std::string Take() && { return std::move(out_); }
  void Head(const Json& status);
  void Peers(const Json& peers);
  void Workers(const Json& workers);
  void Drops(const Json& drops);
  void Warnings(const Json& warnings);

 private:
  void Details(const Json& status);
  void Peer(const Json& peer);
  void PathTable(const Json& paths);
  void PathAddresses(const Json& path, size_t indent);
  std::string Tinted(Tint tint, const std::string& text) const;

  const bool colour_;
  std::string out_;
};

std::string View::Tinted(Tint tint, const std::string& text) const {
  if (!colour_ || tint == Tint::kPlain || text.empty()) return text;
  constexpr std::array<const char*, 6> kCodes = {"0", "1", "2", "32", "33", "31"};
  return absl::StrFormat("\x1b[%sm%s\x1b[0m", kCodes[static_cast<size_t>(tint)], text);
}

void View::Head(const Json& status) {
  const std::string state = Fit(OrNothing(Text(status, "state")), 12);
  const auto uptime = Number(status, "uptime_s");
  const std::string rest =
      Join({Text(status, "mode"), Text(status, "device"), uptime ? "up " + Duration(uptime) : "",
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
  return Join(
      {pid ? absl::StrFormat("pid %.0f", *pid) : "", memory ? Bytes(memory) + " of memory" : ""},
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

void View::Details(const Json& status) {
  const std::pair<const char*, std::string> lines[] = {
      {"network", Network(Field(status, "network"))},
      {"engine", Engine(status)},
      {"offloads", Offloads(Field(status, "offloads"))},
      {"process", Process(status)},
  };
  for (const auto& [name, text] : lines) {
    if (text.empty()) continue;
    out_ += Wrap(absl::StrFormat("  %-10s", name), std::string(12, ' '), text);
  }
}

void View::Peers(const Json& peers) {
  if (!peers.is_array()) return;
  if (peers.empty()) out_ += "\nno peers\n";
  for (const auto& peer : peers) Peer(peer);
}

void View::Peer(const Json& peer) {
  const Json& established = Field(peer, "established");
  const bool is_up = established.is_boolean() && established.get<bool>();
  const std::string name = Fit(OrNothing(Text(peer, "name")), 24);
  // The key may be cut short, the state may not.
  const std::string state = is_up ? "established" : "not established";
  const std::string key = Text(peer, "public_key");
  out_ += '\n' + Tinted(Tint::kBold, "peer " + name) + "   " +
          Tinted(is_up ? Tint::kGood : Tint::kBad, state);
  if (!key.empty()) {
    const size_t left = kColumns - Width("peer " + name) - 3 - state.size() - 3;
    out_ += "   " + Tinted(Tint::kDim, Fit(key, left));
  }
  out_ += '\n';

  const auto handshake = Number(peer, "last_handshake_s");
  const std::string age = Duration(handshake);
  out_ += Wrap("  ", "  ",
               Join({"cipher " + OrNothing(Text(peer, "cipher")),
                     age == kNothing ? "no handshake yet" : "handshake " + age + " ago",
                     "received " + Bytes(Number(peer, "rx_bytes")),
                     "sent " + Bytes(Number(peer, "tx_bytes"))},
                    ", "));
  PathTable(Field(peer, "paths"));
}

void View::PathTable(const Json& paths) {
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
            row({Milliseconds(Number(path, "rtt_ms")), Loss(Number(path, "loss")),
                 Rate(Number(path, "rate_mbps")), Bytes(Number(path, "rx_bytes")),
                 Bytes(Number(path, "tx_bytes"))}) +
            '\n';
    PathAddresses(path, 4);
  }
}

// "local → remote", on two lines where one has no room for both.
void View::PathAddresses(const Json& path, size_t indent) {
  const std::string local = Text(path, "local");
  const std::string remote = Text(path, "remote");
  const std::string interface = Text(path, "interface");
  const std::string problem = Text(path, "problem");
  const std::string margin(indent, ' ');
  if (!problem.empty()) out_ += Wrap(margin, margin, problem);
  if (const Json& quota = Field(path, "quota"); quota.is_object()) {
    out_ += Wrap(margin, margin,
                 "quota " + Gigabytes(Number(quota, "used_bytes")) + " of " +
                     Gigabytes(Number(quota, "limit_bytes")) + " used, until " +
                     OrNothing(Text(quota, "resets")));
  }
  if (local.empty() && remote.empty()) return;
  const auto mtu = Number(path, "mtu");
  const std::string line = (interface.empty() ? "" : interface + "  ") + OrNothing(local) + " → " +
                           OrNothing(remote) + (mtu ? absl::StrFormat("  mtu %.0f", *mtu) : "");
  if (indent + Width(line) <= kColumns) {
    out_ += margin + Tinted(Tint::kDim, line) + '\n';
    return;
  }
  out_ += margin + Tinted(Tint::kDim, Fit(OrNothing(local), kColumns - indent)) + '\n';
  out_ += margin + Tinted(Tint::kDim, Fit("→ " + OrNothing(remote), kColumns - indent)) + '\n';
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
    out_ +=
        row({std::to_string(i), Count(Number(worker, "cpu")), Count(Number(worker, "rx_packets")),
             Count(Number(worker, "tx_packets")), Count(Number(worker, "handed_over"))},
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
  const size_t digits = Width(Grouped(counted.front().first));
  for (const auto& [count, name] : counted) {
    out_ += "  " + PadRight(name, widest) + "  " + PadLeft(Grouped(count), digits) + '\n';
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
  View view(options.colour);
  view.Head(status);
  view.Peers(Field(status, "peers"));
  if (options.verbose) view.Workers(Field(status, "workers"));
  view.Drops(Field(status, "drops"));
  view.Warnings(Field(status, "warnings"));
  return std::move(view).Take();
}

bool WantsColour(int fd) { return isatty(fd) == 1 && std::getenv("NO_COLOR") == nullptr; }

}  // namespace braid
