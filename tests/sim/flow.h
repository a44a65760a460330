// Traffic between hosts behind the two ends of a bond. A flow sends packets from either end; what
// comes out is checked against what went in, and metered.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "sim/bond_end.h"
#include "sim/event_loop.h"
#include "sim/inner_packet.h"

namespace braid::sim {

// What one direction of a flow met.
class DirectionMeter {
 public:
  static constexpr DurationNs kBucketNs = 100 * kMillisecondNs;

  uint64_t OnSent() { return sent_++; }
  // False when it must not come (again).
  bool OnDelivered(const PacketLabel& label, TimeNs now_ns);
  // What the host's program gets, in the flow's own order.
  void OnGoodput(uint64_t bytes, TimeNs now_ns);

  uint64_t sent() const { return sent_; }
  uint64_t delivered() const { return delivered_; }
  uint64_t out_of_order() const { return out_of_order_; }
  double lost_share() const;
  uint64_t goodput_bytes() const { return goodput_bytes_; }
  // Times as the loop's clock shows them.
  double goodput_bits_per_s(TimeNs from_ns, TimeNs until_ns) const;
  // The longest time in which nothing came, since it was last asked for.
  DurationNs TakeLongestGap(TimeNs now_ns);
  // In milliseconds; 0 when nothing came.
  double latency_ms(double quantile) const;

 private:
  uint64_t sent_ = 0;
  uint64_t delivered_ = 0;
  uint64_t out_of_order_ = 0;
  uint64_t highest_ = 0;
  TimeNs last_ns_ = 0;
  DurationNs longest_gap_ns_ = 0;
  uint64_t goodput_bytes_ = 0;
  std::vector<bool> seen_;
  std::vector<uint32_t> latencies_us_;
  std::vector<uint64_t> buckets_;
};

// What flows see of the world.
struct Hosts {
  EventLoop& loop;
  Violations& violations;
  std::function<void(int from_end, const InnerPacket&)> send;
};

class Flow {
 public:
  Flow(Hosts& hosts, uint32_t number, std::string name);
  virtual ~Flow() = default;
  Flow(const Flow&) = delete;
  Flow& operator=(const Flow&) = delete;

  // It begins by itself; it ends when it is told.
  virtual void Stop() = 0;
  void Deliver(int at_end, const InnerPacket& packet);

  const std::string& name() const { return name_; }
  // Of what was sent from that end.
  const DirectionMeter& meter(int from_end) const { return meters_[static_cast<size_t>(from_end)]; }
  DirectionMeter& meter(int from_end) { return meters_[static_cast<size_t>(from_end)]; }
  // For people: what only this kind of flow has.
  virtual std::string Details() const { return ""; }

 protected:
  virtual void OnPacket(int at_end, const InnerPacket& packet) = 0;
  void Send(int from_end, InnerPacket packet, bool ecn = false);
  void CountGoodput(int from_end, uint64_t bytes) {
    meters_[static_cast<size_t>(from_end)].OnGoodput(bytes, hosts_.loop.now_ns());
  }

  TimeNs now_ns() const { return hosts_.loop.now_ns(); }
  Random& random() { return hosts_.loop.random(); }
  EventLoop& loop() { return hosts_.loop; }

 private:
  Hosts& hosts_;
  const uint32_t number_;
  const std::string name_;
  uint32_t flow_hash_;
  std::array<DirectionMeter, 2> meters_;
};

}  // namespace braid::sim
