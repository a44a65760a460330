// How fast TLS connections are taken. A handshake costs more than all the rest, so it is paid for
// with time in which no other one is begun, and others wait in the kernel's queue: the least when a
// connection comes, and so many times what its handshake then takes of the thread, which depends on
// the key and on what the client chooses. Sans I/O.
#pragma once

#include <algorithm>
#include <chrono>

namespace braid {

class TlsPace {
 public:
  using Duration = std::chrono::steady_clock::duration;
  using Time = std::chrono::steady_clock::time_point;

  static constexpr std::chrono::microseconds kLeast{2500};
  static constexpr int kTimesItsCost = 5;
  // That may come before others are let wait.
  static constexpr std::chrono::milliseconds kBurst{250};

  // One has come. How long to wait before the next is taken.
  Duration OnAccept(Time now) {
    next_ = std::max(next_, now) + kLeast;
    return std::max<Duration>(next_ - now - kBurst, Duration::zero());
  }
  // The handshake of one has taken `cost` by now, after `before`.
  void OnCost(Duration before, Duration cost, Time now) {
    next_ = std::max(next_, now) + PriceOf(cost) - PriceOf(before);
  }

 private:
  static Duration PriceOf(Duration cost) {
    return std::max<Duration>(kTimesItsCost * cost, kLeast);
  }

  Time next_{};  // when one would be taken where they come evenly
};

}  // namespace braid
