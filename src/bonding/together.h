// Whether flows that keep nothing waiting are to use several paths at once, whatever their delays.
//
// A flow whose window grows until something waits (CUBIC, Reno) makes use of a slower path by
// itself: what waits for the quicker one arrives as late. A flow that sends what was delivered
// before, and keeps what is under way short (BBR: draft-ietf-ccwg-bbr), fills the quicker path and
// never learns of the others. It is known by what waits: every eight round trips it sends a quarter
// more for one of them, to see whether there is more, and a quarter less for the next, so that
// rises and falls all the time. With the others it grows for seconds, until something is lost.
//
// So it is tried: for a while packets take whichever path is free, and wait for each other at the
// other end. That makes its round trip longer, and such a flow has no more under way than about two
// of the shortest round trips that it has seen, and what acknowledgements brought at once. Where
// that is not enough:
//  - it is given bursts. The slower paths pause now and then; what comes after is held and then
//    delivered at once.
//  - every ten seconds or so it sends next to nothing, to find its shortest round trip again. What
//    it sends then takes the slowest path, and from then on its window is large enough.
// Sans I/O; one thread.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/clock.h"
#include "bonding/turns.h"

namespace braid {

class Together {
 public:
  // In which order paths are taken.
  enum class Order : uint8_t {
    kByArrival,      // not together: whichever delivers first
    kQuickestOnly,   // a pause of the others
    kQuickestFirst,  // those that are free
    kSlowestFirst,   // so the round trip does not vary
  };

  // What the paths are at. Rates are bytes a second on the links.
  struct View {
    size_t used = 1;              // so many of the quickest paths are used by now
    double used_bytes_per_s = 0;  // that those carry
    bool spare = false;           // there is another
    double demand_bytes_per_s = 0;
    double goodput_bytes_per_s = 0;
    double waiting_bytes = 0;       // here and on the links
    DurationNs spread_ns = 0;       // of the delays, of those that are together
    DurationNs next_spread_ns = 0;  // and with the spare one
    DurationNs rtt_ns = 0;          // of the quickest
    DurationNs jitter_ns = 0;       // the largest, of those that are used
  };

  // Something for which delay does not matter was enqueued.
  void NoteBulk(size_t bytes, TimeNs now_ns);
  // To be called every few milliseconds while anything is sent.
  void Look(const View& view, TimeNs now_ns);
  void End() { Become(1, false, 0); }

  bool active() const { return paths_ > 1; }
  // So many of the quickest paths are together.
  size_t paths() const { return paths_; }
  Order order(TimeNs now_ns) const;

 private:
  void LookAtWindow(const View& view, TimeNs now_ns);
  void Try(const View& view, TimeNs now_ns);
  void Watch(const View& view, TimeNs now_ns);
  void WatchQuiet(TimeNs now_ns);
  bool Harms(const View& view, TimeNs now_ns);
  void Become(size_t paths, bool even, TimeNs now_ns);

  size_t paths_ = 1;
  TimeNs since_ns_ = 0;
  bool even_ = false;  // the window is large enough: round trips do not vary any more
  DurationNs spread_ns_ = 0;
  DurationNs pause_every_ns_ = 1;

  // Of the present window, while all that is used is full.
  bool full_ = false;
  double waiting_sum_ = 0;
  size_t waiting_count_ = 0;
  Turns turns_;
  TimeNs window_since_ns_ = 0;
  double waiting_mean_ = 0;  // of the last one
  bool to_try_ = false;      // that has just ended, and was full of such a flow

  // Whether it helps.
  size_t paths_before_ = 1;
  bool even_before_ = false;
  double goodput_before_ = 0;
  TimeNs helped_ns_ = 0;
  TimeNs harms_since_ns_ = 0;  // 0: it does not
  TimeNs spared_until_ns_ = 0;
  int times_spared_ = 0;

  // What was enqueued in this and in the last short period.
  double used_bytes_per_s_ = 0;
  size_t period_bytes_ = 0;
  size_t last_period_bytes_ = 0;
  TimeNs period_since_ns_ = 0;
  TimeNs quiet_since_ns_ = 0;  // 0: it is not
};

}  // namespace braid
