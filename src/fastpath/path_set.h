// Where a peer is reached: the remote and local address of each path, as the slow path knows them,
// and, lane by lane, the newest authenticated source, which may differ behind a NAT.
#pragma once

#include <array>
#include <cstdint>

#include "base/address.h"
#include "base/clock.h"
#include "base/limits.h"
#include "bonding/bond_options.h"

namespace braid {

// One way to send: from a local address through the sockets of one group (on a client: one of its
// paths; on a server: one of its listening addresses) to a remote one.
struct Route {
  Endpoint remote;
  IpAddress local;  // unset: the kernel's choice
  uint16_t socket_group = 0;

  bool operator==(const Route&) const = default;
};

// Follows the source address of an authenticated stream. An address counts once the peer has shown
// that it receives there: by answering a ping whose token only its receiver can know.
class SourceTracker {
 public:
  static constexpr DurationNs kPingIntervalNs = 200 * kMillisecondNs;

  // A packet opened, newer than all before, that came along `source`. True when a ping with
  // token() has to go to candidate() now. `trusted` is an address that was proven already, for
  // instance by a handshake: a first source there needs no ping.
  // `draw_token` gives 64 random bits.
  template <typename DrawToken>
  bool OnNewest(const Route& source, const IpAddress& trusted, TimeNs now_ns,
                DrawToken&& draw_token) {
    heard_ns_ = now_ns;
    if (source == current_) {
      candidate_ = {};
      return false;
    }
    if (!current_.remote.is_set() && source.remote.address == trusted) {
      current_ = source;
      return false;
    }
    // Also where two sources alternate, as when somebody repeats the peer's packets.
    if (pinged_ns_ != 0 && now_ns < pinged_ns_ + kPingIntervalNs) return false;
    if (!(source == candidate_)) token_ = draw_token();
    candidate_ = source;
    pinged_ns_ = now_ns;
    return true;
  }

  // An authenticated pong. True when it proves the candidate, which is then current.
  bool OnPong(uint64_t token) {
    if (!candidate_.remote.is_set() || token != token_) return false;
    current_ = candidate_;
    candidate_ = {};
    return true;
  }

  void Forget() { current_ = candidate_ = {}; }

  const Route& current() const { return current_; }  // remote unset: none
  const Route& candidate() const { return candidate_; }
  uint64_t token() const { return token_; }
  TimeNs heard_ns() const { return heard_ns_; }

 private:
  Route current_;
  Route candidate_;
  uint64_t token_ = 0;
  TimeNs pinged_ns_ = 0;
  TimeNs heard_ns_ = 0;
};

// How what a read brought came in.
struct Incoming {
  static constexpr int16_t kAnyLane = -1;

  Route back;                      // the way to answer
  int16_t socket_lane = kAnyLane;  // the lane that the socket is for
  uint16_t datagram_bytes = 0;     // of each datagram but the last
  uint64_t wall_ns = 0;            // when the kernel took it in, by WallNowNs(); 0: not told
};

// A path of a session, as the slow path publishes it.
struct PathState {
  Route route;           // remote unset: no such path
  uint32_t version = 0;  // moves when the route does: what lanes learned before is then void
  bool up = false;       // the peer answers there
  bool far = false;      // a loss costs a flow more there than a bond costs
  BondPathOptions options;
};

}  // namespace braid
