#include "cli/bench_report.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_format.h"
#include "base/rounded.h"
#include "cli/units.h"

namespace braid {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kDigits = 3;

// Lines of cells, each column as wide as its widest cell. The first ones hold words and stand left,
// the others numbers and stand right. A remark behind a line makes no column wider.
class Table {
 public:
  Table(size_t word_columns, std::vector<std::string> head) : word_columns_(word_columns) {
    Add(std::move(head));
  }

  void Add(std::vector<std::string> cells, std::string remark = "") {
    rows_.push_back({std::move(cells), std::move(remark)});
  }

  std::string Render() const {
    std::vector<size_t> widths;
    for (const auto& [cells, remark] : rows_) {
      widths.resize(std::max(widths.size(), cells.size()));
      for (size_t i = 0; i < cells.size(); ++i) widths[i] = std::max(widths[i], cells[i].size());
    }
    std::string text;
    for (const auto& [cells, remark] : rows_) {
      std::string line = "  ";
      for (size_t i = 0; i < cells.size(); ++i) {
        const std::string padding(widths[i] - cells[i].size(), ' ');
        if (i > 0) line += "  ";
        line += i < word_columns_ ? cells[i] + padding : padding + cells[i];
      }
      if (!remark.empty()) line += "  " + remark;
      line.erase(line.find_last_not_of(' ') + 1);
      text += line + '\n';
    }
    return text;
  }

 private:
  struct Row {
    std::vector<std::string> cells;
    std::string remark;
  };
  size_t word_columns_;
  std::vector<Row> rows_;
};

std::string Grouped(double count) {
  std::string digits = absl::StrFormat("%.0f", count);
  for (size_t at = digits.size(); at > 3;) digits.insert(at -= 3, ",");
  return digits;
}

std::string Gigabytes(double bytes_per_s) { return absl::StrFormat("%.2f", bytes_per_s / 1e9); }

// Three digits that say something.
std::string Short(double value) {
  const double size = std::abs(value);
  return absl::StrFormat("%.*f", size < 10 ? 2 : size < 100 ? 1 : 0, value);
}

std::string Rate(double mbps) {
  return mbps >= 1000 ? Short(mbps / 1000) + " Gbit/s" : Short(mbps) + " Mbit/s";
}

// What is lost is never rounded to nothing.
std::string Loss(double share) {
  if (share <= 0) return "0 %";
  return share < 0.0001 ? "<0.01 %" : absl::StrFormat("%.2f %%", share * 100);
}

std::string Milliseconds(double ms) {
  return absl::StrFormat("%.*f ms", ms < 10 ? 3 : ms < 100 ? 1 : 0, ms);
}

}  // namespace

// --- crypto ---

std::string RenderReport(const CryptoReport& report) {
  std::string text;
  const auto find = [&report](const CryptoFigure& like, int threads) -> const CryptoFigure* {
    for (const CryptoFigure& each : report.figures) {
      if (each.cipher == like.cipher && each.backend == like.backend && each.bytes == like.bytes &&
          each.threads == threads) {
        return &each;
      }
    }
    return nullptr;
  };
  std::vector<std::string> head = {"bytes", "seal ns", "GB/s", "open ns", "GB/s"};
  if (report.cpus > 1) {
    head.push_back(absl::StrFormat("%d cores: seal GB/s", report.cpus));
    head.insert(head.end(), {"open GB/s", "times one core"});
  }
  std::string title;
  Table table(0, {});
  const auto flush = [&] {
    if (!title.empty()) text += (text.empty() ? "" : "\n") + title + '\n' + table.Render();
  };
  for (const CryptoFigure& one : report.figures) {
    if (one.threads != 1) continue;
    if (const std::string here = one.cipher + ", " + one.backend; here != title) {
      flush();
      title = here;
      table = Table(0, head);
    }
    std::vector<std::string> row = {absl::StrFormat("%d", one.bytes), Short(one.seal_ns),
                                    Gigabytes(one.seal_bytes_per_s), Short(one.open_ns),
                                    Gigabytes(one.open_bytes_per_s)};
    if (const CryptoFigure* many = find(one, report.cpus); many != nullptr && report.cpus > 1) {
      row.push_back(Gigabytes(many->seal_bytes_per_s));
      row.push_back(Gigabytes(many->open_bytes_per_s));
      row.push_back(Short((many->seal_bytes_per_s + many->open_bytes_per_s) /
                          (one.seal_bytes_per_s + one.open_bytes_per_s)));
    }
    table.Add(std::move(row));
  }
  flush();
  text += "\nperformance.aead \"auto\" takes here\n";
  for (const CryptoChoice& choice : report.choices) {
    text += absl::StrFormat("  %-18s  %s: %s\n", choice.cipher, choice.backend, choice.why);
  }
  return text;
}

Json DescribeReport(const CryptoReport& report) {
  Json json;
  json["bench"] = "crypto";
  json["cpus"] = report.cpus;
  json["auto"] = Json::array();
  for (const CryptoChoice& choice : report.choices) {
    json["auto"].push_back(
        {{"cipher", choice.cipher}, {"backend", choice.backend}, {"why", choice.why}});
  }
  json["figures"] = Json::array();
  for (const CryptoFigure& figure : report.figures) {
    json["figures"].push_back({{"cipher", figure.cipher},
                               {"backend", figure.backend},
                               {"bytes", figure.bytes},
                               {"threads", figure.threads},
                               {"seal_ns", Rounded(figure.seal_ns, kDigits)},
                               {"open_ns", Rounded(figure.open_ns, kDigits)},
                               {"seal_bytes_per_s", Rounded(figure.seal_bytes_per_s, 0)},
                               {"open_bytes_per_s", Rounded(figure.open_bytes_per_s, 0)}});
  }
  return json;
}

// --- device ---

std::string RenderReport(const DeviceReport& report) {
  std::string text = "Linux " + report.kernel + '\n';
  for (const std::string& note : report.notes) text += "  " + note + '\n';
  text += "\nTUN\n";
  Table tun(3, {"offload", "backend", "way", "packet bytes", "packets/s", "GB/s"});
  for (const TunFigure& figure : report.tun) {
    if (figure.refused.empty()) {
      tun.Add({figure.offload, figure.backend, figure.way,
               absl::StrFormat("%d", figure.packet_bytes), Grouped(figure.packets_per_s),
               Gigabytes(figure.bytes_per_s)});
    } else {
      tun.Add({figure.offload, figure.backend, figure.way, kNothing, kNothing, kNothing},
              "refused: " + figure.refused);
    }
  }
  text += tun.Render();
  text += absl::StrFormat("\nUDP, datagrams of %d bytes\n", report.datagram_bytes);
  Table udp(3, {"link", "mode", "backend", "sent/s", "received/s", "GB/s"});
  for (const UdpFigure& figure : report.udp) {
    if (figure.refused.empty()) {
      udp.Add({figure.link, figure.mode, figure.backend, Grouped(figure.sent_per_s),
               Grouped(figure.received_per_s), Gigabytes(figure.bytes_per_s)});
    } else {
      udp.Add({figure.link, figure.mode, figure.backend, kNothing, kNothing, kNothing},
              "refused: " + figure.refused);
    }
  }
  return text + udp.Render();
}

Json DescribeReport(const DeviceReport& report) {
  Json json;
  json["bench"] = "device";
  json["kernel"] = report.kernel;
  json["max_gso_datagrams"] = report.max_gso_datagrams;
  json["datagram_bytes"] = report.datagram_bytes;
  json["notes"] = report.notes;
  json["tun"] = Json::array();
  for (const TunFigure& figure : report.tun) {
    Json one = {{"way", figure.way}, {"offload", figure.offload}, {"backend", figure.backend}};
    if (figure.refused.empty()) {
      one["packet_bytes"] = figure.packet_bytes;
      one["packets_per_s"] = Rounded(figure.packets_per_s, 0);
      one["bytes_per_s"] = Rounded(figure.bytes_per_s, 0);
    } else {
      one["refused"] = figure.refused;
    }
    json["tun"].push_back(std::move(one));
  }
  json["udp"] = Json::array();
  for (const UdpFigure& figure : report.udp) {
    Json one = {{"link", figure.link}, {"mode", figure.mode}, {"backend", figure.backend}};
    if (figure.refused.empty()) {
      one["sent_per_s"] = Rounded(figure.sent_per_s, 0);
      one["received_per_s"] = Rounded(figure.received_per_s, 0);
      one["bytes_per_s"] = Rounded(figure.bytes_per_s, 0);
    } else {
      one["refused"] = figure.refused;
    }
    json["udp"].push_back(std::move(one));
  }
  return json;
}

// --- tunnel ---

Spread SpreadOf(std::vector<double> samples) {
  if (samples.empty()) return {};
  std::sort(samples.begin(), samples.end());
  const size_t middle = samples.size() / 2;
  const double median =
      samples.size() % 2 == 1 ? samples[middle] : (samples[middle - 1] + samples[middle]) / 2;
  return {median, samples.front(), samples.back()};
}

Spread RatioOf(const TunnelFigure& figure) {
  std::vector<double> ratios;
  for (size_t i = 0; i < std::min(figure.tunnel.size(), figure.bare.size()); ++i) {
    if (figure.bare[i] > 0) ratios.push_back(figure.tunnel[i] / figure.bare[i]);
  }
  return SpreadOf(std::move(ratios));
}

namespace {

std::string InUnit(double value, const std::string& unit) {
  if (unit == "Mbit/s") return Rate(value);
  if (unit == "ms") return Milliseconds(value);
  return Grouped(value) + " " + unit;
}

Json Describe(const Spread& spread, int digits) {
  return {{"median", Rounded(spread.median, digits)},
          {"least", Rounded(spread.least, digits)},
          {"most", Rounded(spread.most, digits)}};
}

}  // namespace

std::string RenderReport(const TunnelReport& report) {
  std::string text = absl::StrFormat(
      "%s (%s), %s, %d %s at each end, MTU %d; %d s each, %s\n", report.cipher, report.aead,
      report.io, report.workers, report.workers == 1 ? "worker" : "workers", report.mtu,
      report.seconds,
      report.rounds == 1 ? "once" : absl::StrFormat("medians of %d rounds", report.rounds));
  const bool has_spread = report.rounds > 1;
  std::vector<std::string> head = {"", "tunnel", "no tunnel", "ratio"};
  if (has_spread) head.push_back("least-most");
  Table table(1, std::move(head));
  for (const TunnelFigure& figure : report.figures) {
    const Spread ratio = RatioOf(figure);
    std::vector<std::string> row = {
        figure.name, InUnit(SpreadOf(figure.tunnel).median, figure.unit),
        InUnit(SpreadOf(figure.bare).median, figure.unit), Short(ratio.median)};
    if (has_spread) row.push_back(Short(ratio.least) + "-" + Short(ratio.most));
    table.Add(std::move(row));
  }
  return text + table.Render();
}

Json DescribeReport(const TunnelReport& report) {
  Json json;
  json["bench"] = "tunnel";
  json["cipher"] = report.cipher;
  json["aead"] = report.aead;
  json["io"] = report.io;
  json["workers"] = report.workers;
  json["mtu"] = report.mtu;
  json["rounds"] = report.rounds;
  json["seconds"] = report.seconds;
  json["figures"] = Json::array();
  for (const TunnelFigure& figure : report.figures) {
    Json one;
    one["name"] = figure.name;
    one["unit"] = figure.unit;
    for (const auto& [name, samples] :
         {std::pair("tunnel", &figure.tunnel), std::pair("bare", &figure.bare)}) {
      one[name] = Describe(SpreadOf(*samples), 4);
      one[name]["samples"] = Json::array();
      for (const double sample : *samples) one[name]["samples"].push_back(Rounded(sample, 4));
    }
    one["ratio"] = Describe(RatioOf(figure), 4);
    json["figures"].push_back(std::move(one));
  }
  return json;
}

// --- peer ---

std::string RenderProgress(const std::string& name, const MeasurePlan& plan,
                           const MeasureProgress& progress) {
  const auto rate = [&plan](bool is_measured, double mbps) {
    return plan.load != LoadKind::kIdle && is_measured ? Rate(mbps) : std::string(kNothing);
  };
  const bool answered = progress.answers > 0;
  return absl::StrFormat("%-10s %3d s   up %12s   down %12s   loss %8s   rtt p50 %9s  p99 %9s",
                         name, progress.second, rate(plan.up, progress.up_mbps),
                         rate(plan.down, progress.down_mbps), Loss(progress.loss),
                         answered ? Milliseconds(progress.p50_ms) : kNothing,
                         answered ? Milliseconds(progress.p99_ms) : kNothing);
}

std::string RenderReport(const PeerReport& report) {
  std::string text =
      absl::StrFormat("peer %s at %s through %s\n", report.peer, report.address, report.device);
  Table table(1, {"", "up", "down", "lost up", "lost down", "reordered", "probes lost", "rtt p50",
                  "p99", "max"});
  for (const PeerMeasurement& each : report.measurements) {
    const MeasurePlan& plan = each.result.plan;
    const LatencyResult& latency = each.result.latency;
    const bool answered = latency.probes_answered > 0;
    const auto rate = [&plan](bool is_measured, const DirectionResult& direction) {
      return plan.load != LoadKind::kIdle && is_measured ? Rate(direction.mbps)
                                                         : std::string(kNothing);
    };
    const auto loss = [&plan](bool is_measured, const DirectionResult& direction) {
      return plan.load == LoadKind::kUdp && is_measured ? Loss(direction.loss())
                                                        : std::string(kNothing);
    };
    const uint64_t reordered =
        each.result.up.datagrams_reordered + each.result.down.datagrams_reordered;
    const std::string late = plan.load == LoadKind::kUdp ? Grouped(static_cast<double>(reordered))
                                                         : std::string(kNothing);
    const std::string label =
        each.interrupted ? absl::StrFormat("%s, %.1f s", each.name, plan.seconds) : each.name;
    table.Add({label, rate(plan.up, each.result.up), rate(plan.down, each.result.down),
               loss(plan.up, each.result.up), loss(plan.down, each.result.down), late,
               Loss(latency.loss()), answered ? Milliseconds(latency.p50_ms) : kNothing,
               answered ? Milliseconds(latency.p99_ms) : kNothing,
               answered ? Milliseconds(latency.max_ms) : kNothing});
  }
  return text + table.Render();
}

namespace {

Json Describe(const DirectionResult& direction, const MeasurePlan& plan) {
  Json json = {{"mbps", Rounded(direction.mbps, kDigits)}};
  if (plan.load == LoadKind::kUdp) {
    json["datagrams_sent"] = direction.datagrams_sent;
    json["datagrams_received"] = direction.datagrams_received;
    json["datagrams_lost"] = direction.datagrams_lost;
    json["datagrams_reordered"] = direction.datagrams_reordered;
    json["datagrams_doubled"] = direction.datagrams_doubled;
    json["datagrams_per_s"] = Rounded(direction.datagrams_per_s, 1);
    json["loss"] = Rounded(direction.loss(), 6);
  }
  return json;
}

}  // namespace

Json DescribeReport(const PeerReport& report) {
  Json json;
  json["bench"] = "peer";
  json["peer"] = report.peer;
  json["address"] = report.address;
  json["device"] = report.device;
  json["measurements"] = Json::array();
  for (const PeerMeasurement& each : report.measurements) {
    const MeasurePlan& plan = each.result.plan;
    Json one;
    one["name"] = each.name;
    one["load"] = std::string(LoadKindName(plan.load));
    one["seconds"] = Rounded(plan.seconds, 3);
    one["interrupted"] = each.interrupted;
    const bool has_load = plan.load != LoadKind::kIdle;
    one["up"] = has_load && plan.up ? Describe(each.result.up, plan) : Json();
    one["down"] = has_load && plan.down ? Describe(each.result.down, plan) : Json();
    const LatencyResult& latency = each.result.latency;
    const bool answered = latency.probes_answered > 0;
    one["probes_sent"] = latency.probes_sent;
    one["probes_answered"] = latency.probes_answered;
    one["probe_loss"] = Rounded(latency.loss(), 6);
    for (const auto& [name, ms] :
         {std::pair("rtt_min_ms", latency.min_ms), std::pair("rtt_p50_ms", latency.p50_ms),
          std::pair("rtt_p99_ms", latency.p99_ms), std::pair("rtt_max_ms", latency.max_ms)}) {
      one[name] = answered ? Json(Rounded(ms, 4)) : Json();
    }
    json["measurements"].push_back(std::move(one));
  }
  json["error"] = report.error.empty() ? Json() : Json(report.error);
  return json;
}

}  // namespace braid
