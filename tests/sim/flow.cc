#include "sim/flow.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_format.h"

namespace braid::sim {

bool DirectionMeter::OnDelivered(const PacketLabel& label, TimeNs now_ns) {
  if (label.number >= sent_) return false;
  if (seen_.size() <= label.number) seen_.resize((label.number + 1) * 2);
  if (seen_[label.number]) return false;
  seen_[label.number] = true;
  ++delivered_;
  if (label.number < highest_) ++out_of_order_;
  highest_ = std::max(highest_, label.number);
  if (last_ns_ != 0) longest_gap_ns_ = std::max(longest_gap_ns_, now_ns - last_ns_);
  last_ns_ = now_ns;
  latencies_us_.push_back(static_cast<uint32_t>((now_ns - label.sent_ns) / kMicrosecondNs));
  return true;
}

void DirectionMeter::OnGoodput(uint64_t bytes, TimeNs now_ns) {
  goodput_bytes_ += bytes;
  const auto bucket = static_cast<size_t>((now_ns - EventLoop::kStartNs) / kBucketNs);
  if (buckets_.size() <= bucket) buckets_.resize(bucket + 1);
  buckets_[bucket] += bytes;
}

DurationNs DirectionMeter::TakeLongestGap(TimeNs now_ns) {
  const DurationNs longest_ns = std::max(longest_gap_ns_, now_ns - last_ns_);
  longest_gap_ns_ = 0;
  last_ns_ = now_ns;
  return longest_ns;
}

double DirectionMeter::lost_share() const {
  return sent_ == 0 ? 0 : static_cast<double>(sent_ - delivered_) / static_cast<double>(sent_);
}

double DirectionMeter::goodput_bits_per_s(TimeNs from_ns, TimeNs until_ns) const {
  const auto first = static_cast<size_t>((from_ns - EventLoop::kStartNs) / kBucketNs);
  const auto last = static_cast<size_t>((until_ns - EventLoop::kStartNs) / kBucketNs);
  uint64_t bytes = 0;
  for (size_t i = first; i < std::min(last, buckets_.size()); ++i) bytes += buckets_[i];
  if (last <= first) return 0;
  return static_cast<double>(bytes) * 8 * kSecondNs /
         static_cast<double>((last - first) * kBucketNs);
}

double DirectionMeter::latency_ms(double quantile) const {
  if (latencies_us_.empty()) return 0;
  std::vector<uint32_t> sorted = latencies_us_;
  const auto at = std::min(sorted.size() - 1,
                           static_cast<size_t>(quantile * static_cast<double>(sorted.size())));
  std::nth_element(sorted.begin(), sorted.begin() + static_cast<std::ptrdiff_t>(at), sorted.end());
  return sorted[at] / 1e3;
}

Flow::Flow(Hosts& hosts, uint32_t number, std::string name)
    : hosts_(hosts), number_(number), name_(std::move(name)) {
  // Flows that share one of the fair queue's would wait for each other.
  constexpr uint32_t kOdd = 37;
  flow_hash_ =
      static_cast<uint32_t>(hosts.loop.random()()) / FairQueue::kFlows * FairQueue::kFlows +
      number * kOdd % FairQueue::kFlows;
}

void Flow::Send(int from_end, InnerPacket packet, bool ecn) {
  packet.flow_hash = flow_hash_;
  packet.Write({.flow = number_,
                .from_end = static_cast<uint8_t>(from_end),
                .bytes = packet.bytes,
                .number = meters_[static_cast<size_t>(from_end)].OnSent(),
                .sent_ns = now_ns()},
               ecn);
  hosts_.send(from_end, packet);
}

void Flow::Deliver(int at_end, const InnerPacket& packet) {
  const PacketLabel label = packet.label();
  if (packet.HeaderSum() != 0xffff) {
    return hosts_.violations.Note(now_ns(), name_ + ": a packet's IP header has a wrong checksum");
  }
  if (label.from_end == at_end || label.bytes != packet.bytes || label.sent_ns > now_ns()) {
    return hosts_.violations.Note(now_ns(), name_ + ": a packet is not what was sent");
  }
  if (!meters_[label.from_end].OnDelivered(label, now_ns())) {
    return hosts_.violations.Note(
        now_ns(),
        absl::StrFormat("%s: packet %d was not sent, or comes twice", name_, label.number));
  }
  OnPacket(at_end, packet);
}

}  // namespace braid::sim
