// A network and a clock of a test's own: datagrams travel between endpoints with a delay, and may
// be lost, doubled and reordered, all by one seed. Whoever stands beside the wire may look at each
// one, hold it back, and put in others.
#pragma once

#include <algorithm>
#include <functional>
#include <map>
#include <queue>
#include <random>
#include <utility>
#include <vector>

#include "base/address.h"
#include "base/bytes.h"
#include "base/clock.h"

namespace braid::testing {

struct Datagram {
  TimeNs sent_ns = 0;
  Endpoint from;
  Endpoint to;
  std::vector<uint8_t> bytes;
};

class SimulatedNetwork {
 public:
  struct Conditions {
    double loss = 0;
    double duplicates = 0;
    DurationNs delay_ns = 10 * kMillisecondNs;
    DurationNs jitter_ns = 0;  // more than the distance of two datagrams reorders them
  };
  using Receiver = std::function<void(const Datagram&)>;

  explicit SimulatedNetwork(uint64_t seed = 1) : random_(seed) {}

  // A socket. What comes to an endpoint where there is none is lost.
  void Attach(const Endpoint& at, Receiver receiver) { sockets_[at] = std::move(receiver); }
  void Detach(const Endpoint& at) { sockets_.erase(at); }

  void Send(const Endpoint& from, const Endpoint& to, Bytes bytes) {
    Datagram datagram{now_ns_, from, to, {bytes.begin(), bytes.end()}};
    log_.push_back(datagram);
    if (on_wire && !on_wire(datagram)) return;
    if (Chance(conditions.loss)) return;
    if (Chance(conditions.duplicates)) Inject(datagram, Delay());
    Inject(std::move(datagram), Delay());
  }

  // Straight into the network, from whoever it claims to be from.
  void Inject(Datagram datagram, DurationNs delay_ns = 0) {
    in_flight_.push({now_ns_ + delay_ns, order_++, std::move(datagram)});
  }

  // Lets time pass. `tick` is called at every multiple of `every_ns`.
  void Run(DurationNs duration_ns, DurationNs every_ns, const std::function<void()>& tick) {
    const TimeNs end_ns = now_ns_ + duration_ns;
    while (now_ns_ < end_ns) {
      const TimeNs next_tick_ns = (now_ns_ / every_ns + 1) * every_ns;
      Deliver(std::min(next_tick_ns, end_ns));
      if (now_ns_ == next_tick_ns) tick();
    }
  }

  TimeNs now_ns() const { return now_ns_; }
  std::mt19937_64& random() { return random_; }

  // All that was sent since the last call, whatever became of it.
  std::vector<Datagram> TakeLog() { return std::exchange(log_, {}); }

  Conditions conditions;
  // Sees what is sent. False: it goes no further.
  std::function<bool(const Datagram&)> on_wire;

 private:
  struct Arriving {
    TimeNs at_ns;
    uint64_t order;
    Datagram datagram;
    bool operator>(const Arriving& other) const {
      return std::pair(at_ns, order) > std::pair(other.at_ns, other.order);
    }
  };

  bool Chance(double probability) {
    return probability > 0 && std::uniform_real_distribution<double>(0, 1)(random_) < probability;
  }
  DurationNs Delay() {
    if (conditions.jitter_ns == 0) return conditions.delay_ns;
    return conditions.delay_ns + random_() % conditions.jitter_ns;
  }

  void Deliver(TimeNs until_ns) {
    while (!in_flight_.empty() && in_flight_.top().at_ns <= until_ns) {
      const Arriving next = in_flight_.top();
      in_flight_.pop();
      now_ns_ = std::max(now_ns_, next.at_ns);
      const auto socket = sockets_.find(next.datagram.to);
      if (socket == sockets_.end()) continue;
      const Receiver receiver = socket->second;  // may detach itself
      receiver(next.datagram);
    }
    now_ns_ = until_ns;
  }

  TimeNs now_ns_ = 1'000 * kSecondNs;
  std::mt19937_64 random_;
  std::map<Endpoint, Receiver> sockets_;
  std::priority_queue<Arriving, std::vector<Arriving>, std::greater<>> in_flight_;
  uint64_t order_ = 0;
  std::vector<Datagram> log_;
};

}  // namespace braid::testing
