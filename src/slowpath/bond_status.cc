#include "slowpath/bond_status.h"

#include <cmath>
#include <string_view>

#include "base/rounded.h"
#include "bonding/bond_sender.h"

namespace braid {
namespace {

using Json = nlohmann::ordered_json;

double Mbps(uint64_t bytes_per_s) { return Rounded(static_cast<double>(bytes_per_s) * 8 / 1e6, 2); }

template <typename T>
double Ms(T ns) {
  return Rounded(static_cast<double>(ns) / kMillisecondNs, 3);
}

}  // namespace

Json DescribeBond(const BondGauges& bond) {
  Json json;
  json["mode"] = std::string(NameOf(bond.mode.Get()));
  json["active"] = bond.bonded.Get();
  json["queued_packets"] = bond.queued_packets.Get();
  json["queued_bytes"] = bond.queued_bytes.Get();
  json["codel_drops"] = bond.codel_drops.Get();
  json["codel_marks"] = bond.codel_marks.Get();
  json["overflows"] = bond.overflows.Get();
  json["gone_stale"] = bond.gone_stale.Get();
  json["express_packets"] = bond.express_packets.Get();
  json["copies"] = bond.copies.Get();
  json["repairs"] = bond.repairs.Get();
  json["repairs_too_late"] = bond.repairs_too_late.Get();
  json["parity_sent"] = bond.parity_sent.Get();
  json["parity_received"] = bond.parity_received.Get();
  json["recovered"] = bond.recovered.Get();
  json["unrecoverable"] = bond.unrecoverable.Get();
  json["hold_ms"] = Ms(bond.hold_ns.Get());
  json["held_packets"] = bond.held_packets.Get();
  json["held_packets_total"] = bond.held_packets_total.Get();
  json["held_ms_total"] = Ms(bond.held_ns_total.Get());
  json["longest_hold_ms"] = Ms(bond.longest_hold_ns.Get());
  json["given_up"] = bond.given_up.Get();
  json["late"] = bond.late.Get();
  json["lost"] = bond.lost.Get();
  json["duplicates"] = bond.duplicates.Get();
  return json;
}

Json DescribeBondPath(const BondGauges::Path& path) {
  Json json;
  json["state"] = std::string(BondSender::kPathStateNames[path.state.Get()]);
  json["phase"] = std::string(RateControl::kPhaseNames[path.phase.Get()]);
  json["carries"] = path.carries.Get();
  json["capacity_mbps"] = Mbps(path.bytes_per_s.Get());
  json["pacing_mbps"] = Mbps(path.pacing_bytes_per_s.Get());
  json["goodput_mbps"] = Mbps(path.goodput_bytes_per_s.Get());
  json["rtt_ms"] = Ms(path.rtt_ns.Get());
  json["one_way_ms"] = Ms(path.one_way_ns.Get());
  json["one_way_trend_ms_per_s"] = Ms(path.one_way_trend_ns_per_s.Get());
  json["jitter_ms"] = Ms(path.jitter_ns.Get());
  json["queue_ms"] = Ms(path.queue_ns.Get());
  json["loss"] = Rounded(path.loss.Get(), 4);
  return json;
}

}  // namespace braid
