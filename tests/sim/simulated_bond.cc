#include "sim/simulated_bond.h"

#include "absl/strings/str_format.h"

namespace braid::sim {
namespace {

constexpr uint32_t kEthernetBytes = 14;

}  // namespace

SimulatedBond::SimulatedBond(const Settings& settings)
    : loop_(settings.seed),
      hosts_{loop_, violations_,
             [this](int from_end, const InnerPacket& packet) { Send(from_end, packet); }},
      bare_(settings.bare),
      duplicated_(settings.duplicated) {
  for (int end = 0; end < 2; ++end) {
    const auto at = static_cast<size_t>(end);
    ends_[at] = std::make_unique<BondEnd>(
        loop_, violations_,
        BondEnd::Settings{.name = end == 0 ? "left" : "right",
                          .options = settings.options,
                          .slots = settings.slots,
                          .clock_ahead_ns = settings.clock_ahead_ns[at],
                          .most_late_ns = settings.most_late_ns},
        [this, end](Frame&& frame) { Enter(end, std::move(frame)); },
        [this, end](const InnerPacket& packet) { Deliver(end, packet); });
  }
}

SimulatedBond::~SimulatedBond() = default;

void SimulatedBond::AddPath(const linkem::LinkSettings& link, const BondPathOptions& options) {
  const uint8_t path = paths_++;
  for (int end = 0; end < 2; ++end) {
    ways_[path][static_cast<size_t>(end)] =
        std::make_unique<Way>(loop_, link, [this, path, end] { Arrive(path, end); });
  }
  SetPath(path, true, options);
}

void SimulatedBond::SetPath(uint8_t path, bool usable, const BondPathOptions& options) {
  for (const auto& end : ends_) end->SetPath(path, usable, options);
}

void SimulatedBond::ForgetPath(uint8_t path) {
  for (const auto& end : ends_) end->ForgetPath(path);
}

void SimulatedBond::Send(int from_end, const InnerPacket& packet) {
  if (!bare_) return ends_[static_cast<size_t>(from_end)]->Send(packet);
  Frame frame;
  frame.bytes = packet.bytes - (BondEnd::kLinkOverheadBytes - kEthernetBytes);
  frame.inside = packet;
  Enter(from_end, std::move(frame));
}

void SimulatedBond::Deliver(int at_end, const InnerPacket& packet) {
  const uint32_t flow = packet.label().flow;
  if (flow >= flows_.size()) {
    return violations_.Note(loop_.now_ns(), "a packet of no flow came");
  }
  flows_[flow]->Deliver(at_end, packet);
}

void SimulatedBond::Enter(int from_end, Frame&& frame) {
  const uint8_t path = frame.path;
  if (path >= paths_) return violations_.Note(loop_.now_ns(), "a datagram over no link");
  Way& way = this->way(path, from_end);
  const uint32_t bytes = frame.bytes + BondEnd::kLinkOverheadBytes;
  if (duplicated_ > 0 && Share(loop_.random()) < duplicated_) {
    way.link.Enter(loop_.now_ns(), bytes, Frame(frame));
  }
  way.link.Enter(loop_.now_ns(), bytes, std::move(frame));
  way.due.Set(way.link.NextDueNs());
}

void SimulatedBond::Arrive(uint8_t path, int from_end) {
  Way& way = this->way(path, from_end);
  way.link.Deliver(loop_.now_ns(), [&](TimeNs, uint32_t, Frame&& frame) {
    if (bare_) return Deliver(1 - from_end, std::get<InnerPacket>(frame.inside));
    ends_[static_cast<size_t>(1 - from_end)]->Receive(std::move(frame));
  });
  way.due.Set(way.link.NextDueNs());
}

void SimulatedBond::ChangeLink(uint8_t path, int from_end, const linkem::LinkSettings& link) {
  Way& way = this->way(path, from_end);
  way.link.Change(loop_.now_ns(), link);
  way.due.Set(way.link.NextDueNs());
}

void SimulatedBond::ChangeLink(uint8_t path, const linkem::LinkSettings& link) {
  for (int end = 0; end < 2; ++end) ChangeLink(path, end, link);
}

void SimulatedBond::SetDown(uint8_t path, bool down) {
  for (int end = 0; end < 2; ++end) {
    linkem::LinkSettings link = link_settings(path, end);
    link.down = down;
    ChangeLink(path, end, link);
  }
}

void SimulatedBond::SetOptions(const BondOptions& options) {
  for (const auto& end : ends_) end->SetOptions(options);
}

void SimulatedBond::SetCannotSeal(double share) {
  for (const auto& end : ends_) end->SetCannotSeal(share);
}

void SimulatedBond::Restart(int restarted) {
  ++session_;
  for (int end = 0; end < 2; ++end) {
    ends_[static_cast<size_t>(end)]->BeginSession(session_, end == restarted);
  }
}

void SimulatedBond::StopFlows() {
  for (const auto& flow : flows_) flow->Stop();
}

void SimulatedBond::CheckNothingIsLeft() {
  for (const auto& end : ends_) {
    end->Clear();
    const BondMemory& memory = end->memory();
    const size_t indexed = memory.sent.used() + memory.held.used() + memory.kept.used();
    if (memory.slab.used() + indexed == 0) continue;
    violations_.Note(
        loop_.now_ns(),
        absl::StrFormat("left behind: %d slots, %d sent, %d held, %d kept", memory.slab.used(),
                        memory.sent.used(), memory.held.used(), memory.kept.used()));
  }
}

const linkem::LinkSettings& SimulatedBond::link_settings(uint8_t path, int from_end) const {
  return way(path, from_end).link.settings();
}

const linkem::LinkCounters& SimulatedBond::link_counters(uint8_t path, int from_end) const {
  return way(path, from_end).link.counters();
}

}  // namespace braid::sim
