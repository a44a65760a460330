#include "report.h"

#include <nlohmann/json.hpp>

#include "absl/strings/str_format.h"
#include "progress.h"

namespace braid::swarm {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kLabelWidth = 22;

std::string Line(const std::string& label, const std::string& value) {
  return absl::StrFormat("%-*s %s\n", kLabelWidth, label, value);
}

std::string Latency(const Json& latency) {
  if (latency.is_null()) return "-";
  return absl::StrFormat("p50 %.2f ms, p99 %.2f ms, at most %.2f ms", latency["p50"].get<double>(),
                         latency["p99"].get<double>(), latency["max"].get<double>());
}

std::string Counts(const Json& counts) {
  std::string text;
  for (const auto& [name, count] : counts.items()) {
    if (count == 0) continue;
    if (!text.empty()) text += ", ";
    text += Grouped(count.get<double>()) + " " + name;
    for (char& c : text) c = c == '_' ? ' ' : c;
  }
  return text.empty() ? "none" : text;
}

std::string Megabytes(const Json& memory) {
  return absl::StrFormat("%.1f MB", memory["resident_bytes"].get<double>() / 1e6);
}

std::string RenderHandshakes(const Json& result) {
  std::string text =
      Line("completed", Grouped(result["completed"].get<double>()) + ", " +
                            Grouped(result["per_second"].get<double>()) + " a second") +
      Line("latency", Latency(result["latency_ms"])) + Line("counted", Counts(result["counts"]));
  if (!result.contains("server_cpu")) return text;
  const Json& cpu = result["server_cpu"];
  text += Line("server's CPU", absl::StrFormat("%.1f us a handshake, %.1f without its workers",
                                               cpu["us_per_handshake"].get<double>(),
                                               cpu["others_us_per_handshake"].get<double>()));
  return text + Line("a second and core",
                     Grouped(result["per_second_and_core"].get<double>()) + ", " +
                         Grouped(result["per_second_and_core_with_workers"].get<double>()) +
                         " with the workers' part");
}

std::string RenderEstablishing(const Json& establishing) {
  return Line("established",
              absl::StrFormat("%s in %.1f s", Grouped(establishing["clients"].get<double>()),
                              establishing["seconds"].get<double>())) +
         Line("latency", Latency(establishing["latency_ms"])) +
         Line("counted", Counts(establishing["counts"]));
}

std::string RenderIdle(const Json& result) {
  std::string text =
      RenderEstablishing(result["establishing"]) +
      Line("then idle",
           absl::StrFormat("%.1f s, %s rekeys, %s established at the end",
                           result["seconds"].get<double>(), Grouped(result["rekeys"].get<double>()),
                           Grouped(result["established_at_end"].get<double>()))) +
      Line("counted", Counts(result["counts"]));
  if (result.contains("memory")) {
    const Json& memory = result["memory"];
    text += Line("server's memory", Megabytes(memory["before"]) + ", " +
                                        Megabytes(memory["established"]) + " established, " +
                                        Megabytes(memory["end"]) + " at the end");
    text += Line("of a client", Grouped(memory["bytes_per_client"].get<double>()) + " bytes");
  }
  if (result.contains("server_cpu")) {
    text += Line("server's CPU",
                 absl::StrFormat("%.2f %% of a core",
                                 result["server_cpu"]["percent_of_a_core"].get<double>()));
  }
  return text;
}

std::string RenderSend(const Json& result) {
  std::string text = RenderEstablishing(result["establishing"]) +
                     Line("meanwhile counted", Counts(result["counts"])) +
                     absl::StrFormat("\n%9s %9s %12s %12s %14s  %s\n", "clients", "flows", "sent/s",
                                     "accepted/s", "worker ns each", "server drops");
  for (const Json& one : result["cases"]) {
    const bool accepted = one.contains("accepted");
    const bool cost = one.contains("worker_ns_per_packet");
    text += absl::StrFormat("%9s %9s %12s %12s %14s  %s\n", Grouped(one["active"].get<double>()),
                            Grouped(one["flows"].get<double>()),
                            Grouped(one["sent_per_second"].get<double>()),
                            accepted ? Grouped(one["accepted_per_second"].get<double>()) : "-",
                            cost ? Grouped(one["worker_ns_per_packet"].get<double>()) : "-",
                            accepted ? Counts(one["server_drops"]) : "-");
  }
  return text;
}

}  // namespace

std::string Render(const Json& result) {
  const std::string mode = result["mode"];
  if (mode == "handshakes") return RenderHandshakes(result);
  return mode == "idle" ? RenderIdle(result) : RenderSend(result);
}

}  // namespace braid::swarm
