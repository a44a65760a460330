// One direction of an emulated link. Sans I/O: frames and the time go in, frames and the time of
// their delivery come out; chance comes from a generator that the caller has seeded, so the same
// input gives the same output.
//
//   Enter ─► queue ─► serialised at the rate ─► lost? ─► delay ± jitter ─► Deliver
//            │ full: dropped                              └ or held back, so that others overtake
//
// A frame that finds the link idle is serialised at once and takes no room of the queue. A lost
// frame takes as much of the link's time as any other. What was changed counts from then on: the
// rate for what is not on the wire yet (of a frame, too), loss and delay for what leaves the
// serialiser later. Frames keep their order whatever changes, but for those held back.
//
// Losses in bursts are Gilbert's model (Capacity of a burst-noise channel, 1960) with a good state
// that loses nothing and a bad one that loses everything.
#pragma once

#include <algorithm>
#include <cstdint>
#include <deque>
#include <limits>
#include <random>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "linkem/link_settings.h"

namespace braid::linkem {

inline constexpr TimeNs kNever = std::numeric_limits<TimeNs>::max();

struct LinkCounters {
  uint64_t frames_in = 0;
  uint64_t bytes_in = 0;
  uint64_t frames_delivered = 0;
  uint64_t bytes_delivered = 0;
  uint64_t frames_queue_full = 0;  // dropped: the queue had no room
  uint64_t bytes_queue_full = 0;
  uint64_t frames_lost = 0;  // by chance, or because the link was down
  uint64_t bytes_lost = 0;
  uint64_t frames_held_back = 0;
  uint64_t queue_frames = 0;  // now
  uint64_t queue_bytes = 0;
  uint64_t max_queue_bytes = 0;
};

using Random = std::mt19937_64;

// True for so large a share of the calls.
bool Chance(Random& random, double share);

// When a frame's last bit leaves the serialiser. Exact over time: what a division by the rate left
// is carried to the next frame.
class Serializer {
 public:
  void SetRate(uint64_t bits_per_s) {
    rate_ = bits_per_s;
    carry_ = 0;
  }
  DurationNs Take(uint32_t bytes);

 private:
  uint64_t rate_ = 0;
  uint64_t carry_ = 0;  // below the rate; in nanobits
};

// Which frames are lost, one call for each in their order.
class LossModel {
 public:
  bool Lost(const LinkSettings& settings, Random& random);

 private:
  bool in_burst_ = false;
};

// Frame stands for a frame here, a number or an owning handle: it can be moved, and made without
// arguments. The time may step back a
// little between calls: what has happened by then has happened.
template <typename Frame>
class Link {
 public:
  enum class Verdict { kEntered, kQueueFull, kDown };

  // `random` must outlive the link; two links may share it.
  Link(const LinkSettings& settings, Random& random) : settings_(settings), random_(random) {
    serializer_.SetRate(settings.rate_bits_per_s);
  }

  // A link that goes down loses what is in its queue and on its wire.
  void Change(TimeNs now_ns, const LinkSettings& settings);

  Verdict Enter(TimeNs now_ns, uint32_t bytes, Frame frame);

  // The time of the next delivery; before a frame's chance has fallen, a time that its delivery
  // cannot precede. Ask again after each call of the others.
  TimeNs NextDueNs() const;

  // No frame that enters at `now_ns` or later is due before this.
  TimeNs EarliestDueNs(TimeNs now_ns) const;

  // Calls deliver(TimeNs due_ns, uint32_t bytes, Frame&& frame) for each that is due, in order.
  template <typename F>
  void Deliver(TimeNs now_ns, F&& deliver);

  const LinkSettings& settings() const { return settings_; }
  const LinkCounters& counters() const { return counters_; }

 private:
  struct Waiting {
    uint32_t bytes;
    Frame frame;
  };
  struct Flying {
    TimeNs due_ns;
    uint32_t bytes;
    Frame frame;
  };
  struct HeldBack {
    Flying flying;
    uint64_t number;  // of two that are due at once, the first goes first
  };
  // For a heap whose front is due first.
  static bool DueLater(const HeldBack& a, const HeldBack& b) {
    return std::pair(a.flying.due_ns, a.number) > std::pair(b.flying.due_ns, b.number);
  }

  void Advance(TimeNs now_ns);
  void Begin(TimeNs start_ns, Waiting frame);
  void LeaveSerializer();
  DurationNs LeastDelayNs() const {
    return settings_.delay_ns - std::min(settings_.delay_ns, settings_.jitter_ns);
  }
  void CountLost(uint32_t bytes) {
    ++counters_.frames_lost;
    counters_.bytes_lost += bytes;
  }
  void LoseEverything();

  LinkSettings settings_;
  Random& random_;
  LossModel loss_;
  LinkCounters counters_;

  std::deque<Waiting> queue_;
  Serializer serializer_;
  bool serializing_ = false;
  Waiting serialized_{};
  TimeNs serialized_until_ns_ = 0;  // or has been, when idle
  TimeNs last_due_ns_ = 0;          // of those that keep their order
  std::deque<Flying> flying_;
  std::vector<HeldBack> held_back_;  // heap
};

template <typename Frame>
void Link<Frame>::Change(TimeNs now_ns, const LinkSettings& settings) {
  Advance(now_ns);
  const uint64_t old_rate = settings_.rate_bits_per_s;
  const uint64_t new_rate = settings.rate_bits_per_s;
  settings_ = settings;
  if (new_rate != old_rate) {
    serializer_.SetRate(new_rate);
    if (serializing_ && serialized_until_ns_ > now_ns) {
      const auto left_ns = static_cast<double>(serialized_until_ns_ - now_ns);
      const double ratio =
          new_rate == 0 ? 0 : static_cast<double>(old_rate) / static_cast<double>(new_rate);
      serialized_until_ns_ = now_ns + static_cast<DurationNs>(left_ns * ratio);
    }
  }
  if (settings.down) LoseEverything();
}

template <typename Frame>
typename Link<Frame>::Verdict Link<Frame>::Enter(TimeNs now_ns, uint32_t bytes, Frame frame) {
  Advance(now_ns);
  ++counters_.frames_in;
  counters_.bytes_in += bytes;
  if (settings_.down) {
    CountLost(bytes);
    return Verdict::kDown;
  }
  if (!serializing_) {
    Begin(std::max(now_ns, serialized_until_ns_), {bytes, std::move(frame)});
    Advance(now_ns);  // an unlimited link is done with it
    return Verdict::kEntered;
  }
  if (counters_.queue_bytes + bytes > settings_.queue_bytes) {
    ++counters_.frames_queue_full;
    counters_.bytes_queue_full += bytes;
    return Verdict::kQueueFull;
  }
  queue_.push_back({bytes, std::move(frame)});
  ++counters_.queue_frames;
  counters_.queue_bytes += bytes;
  counters_.max_queue_bytes = std::max(counters_.max_queue_bytes, counters_.queue_bytes);
  return Verdict::kEntered;
}

template <typename Frame>
void Link<Frame>::Advance(TimeNs now_ns) {
  while (serializing_ && serialized_until_ns_ <= now_ns) {
    LeaveSerializer();
    serializing_ = false;
    if (queue_.empty()) return;
    Waiting next = std::move(queue_.front());
    queue_.pop_front();
    --counters_.queue_frames;
    counters_.queue_bytes -= next.bytes;
    Begin(serialized_until_ns_, std::move(next));
  }
}

template <typename Frame>
void Link<Frame>::Begin(TimeNs start_ns, Waiting frame) {
  serialized_until_ns_ = start_ns + serializer_.Take(frame.bytes);
  serialized_ = std::move(frame);
  serializing_ = true;
}

template <typename Frame>
void Link<Frame>::LeaveSerializer() {
  Waiting frame = std::move(serialized_);
  if (loss_.Lost(settings_, random_)) {
    CountLost(frame.bytes);
    return;
  }
  DurationNs delay_ns = settings_.delay_ns;
  if (settings_.jitter_ns != 0) {
    delay_ns += random_() % (2 * settings_.jitter_ns + 1);
    delay_ns -= std::min(delay_ns, settings_.jitter_ns);
  }
  const TimeNs due_ns = std::max(last_due_ns_, serialized_until_ns_ + delay_ns);
  if (Chance(random_, settings_.reorder)) {
    held_back_.push_back({{due_ns + settings_.reorder_ns, frame.bytes, std::move(frame.frame)},
                          counters_.frames_held_back++});
    std::push_heap(held_back_.begin(), held_back_.end(), DueLater);
    return;
  }
  last_due_ns_ = due_ns;
  flying_.push_back({due_ns, frame.bytes, std::move(frame.frame)});
}

template <typename Frame>
TimeNs Link<Frame>::NextDueNs() const {
  TimeNs due_ns = held_back_.empty() ? kNever : held_back_.front().flying.due_ns;
  if (!flying_.empty()) return std::min(due_ns, flying_.front().due_ns);
  if (!serializing_) return due_ns;
  return std::min(due_ns, std::max(last_due_ns_, serialized_until_ns_ + LeastDelayNs()));
}

template <typename Frame>
TimeNs Link<Frame>::EarliestDueNs(TimeNs now_ns) const {
  const TimeNs start_ns = serializing_ ? std::max(now_ns, serialized_until_ns_) : now_ns;
  return std::max(last_due_ns_, start_ns + LeastDelayNs());
}

template <typename Frame>
template <typename F>
void Link<Frame>::Deliver(TimeNs now_ns, F&& deliver) {
  Advance(now_ns);
  for (;;) {
    const TimeNs in_order_ns = flying_.empty() ? kNever : flying_.front().due_ns;
    const TimeNs held_back_ns = held_back_.empty() ? kNever : held_back_.front().flying.due_ns;
    if (std::min(in_order_ns, held_back_ns) > now_ns) return;
    Flying frame;
    if (in_order_ns <= held_back_ns) {
      frame = std::move(flying_.front());
      flying_.pop_front();
    } else {
      std::pop_heap(held_back_.begin(), held_back_.end(), DueLater);
      frame = std::move(held_back_.back().flying);
      held_back_.pop_back();
    }
    ++counters_.frames_delivered;
    counters_.bytes_delivered += frame.bytes;
    deliver(frame.due_ns, frame.bytes, std::move(frame.frame));
  }
}

template <typename Frame>
void Link<Frame>::LoseEverything() {
  if (serializing_) CountLost(serialized_.bytes);
  for (const Waiting& waiting : queue_) CountLost(waiting.bytes);
  for (const Flying& flying : flying_) CountLost(flying.bytes);
  for (const HeldBack& held : held_back_) CountLost(held.flying.bytes);
  serializing_ = false;
  serialized_ = {};
  serialized_until_ns_ = 0;
  last_due_ns_ = 0;
  queue_.clear();
  flying_.clear();
  held_back_.clear();
  counters_.queue_frames = 0;
  counters_.queue_bytes = 0;
}

}  // namespace braid::linkem
