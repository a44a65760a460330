// Counters, and a set of lanes, that one thread writes and any thread may read; and the list of
// every reason for which a packet can be dropped. Each drop increments exactly one of them.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/limits.h"

namespace braid {

// Written by one thread only, so that an increment costs a plain add and no locked instruction.
class Counter {
 public:
  void Add(uint64_t amount) {
    value_.store(value_.load(std::memory_order_relaxed) + amount, std::memory_order_relaxed);
  }
  void Reset() { value_.store(0, std::memory_order_relaxed); }
  uint64_t Get() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<uint64_t> value_{0};
};

// Written by one thread only, as a counter is.
class LaneSet {
 public:
  void Add(uint8_t lane) {
    auto& word = words_[lane / 64];
    word.store(word.load(std::memory_order_relaxed) | uint64_t{1} << lane % 64,
               std::memory_order_relaxed);
  }
  bool Contains(uint8_t lane) const {
    return (words_[lane / 64].load(std::memory_order_relaxed) >> lane % 64 & 1) != 0;
  }

 private:
  std::array<std::atomic<uint64_t>, (kMaxLanes + 63) / 64> words_{};
};

// name, meaning. The names appear in `braid status`.
#define BRAID_DROP_REASONS(X)                                                            \
  /* A datagram from the network, before it is known whose it is. */                     \
  X(socket_queue_full, "a socket's receive queue was full, as the kernel counts it")     \
  X(short_datagram, "shorter than a header, or than a header and a tag")                 \
  X(bad_magic, "another magic")                                                          \
  X(bad_version, "another version")                                                      \
  X(bad_kind, "an unknown kind")                                                         \
  X(bad_flags, "reserved flags set, or flags that do not fit the packet")                \
  X(unknown_session, "no session has this index")                                        \
  X(bad_lane, "a lane that the session does not have")                                   \
  X(bad_path, "a path id beyond what a session may have")                                \
  X(bad_epoch, "a key epoch that is neither previous, current nor next")                 \
  X(replayed, "a sequence seen before, or too old to tell")                              \
  X(unauthentic, "does not open under the session's key")                                \
  X(expired_key, "sealed under keys that are too old")                                   \
  X(bad_control, "an authentic control message that does not parse")                     \
  X(bad_parity, "an authentic parity packet that does not parse")                        \
  X(throttled_flood, "not opened: its peer sent several times what it may")              \
  /* Handshakes. */                                                                      \
  X(handshake_malformed, "a handshake message of a wrong length or lane")                \
  X(handshake_bad_mac, "mac1 or mac2 does not match")                                    \
  X(handshake_unauthentic, "a handshake message that does not open")                     \
  X(handshake_unknown_peer, "an initiation from a key that is not configured")           \
  X(handshake_replayed, "an initiation with an old counter")                             \
  X(handshake_rate_limited, "initiations beyond the limit while under load")             \
  X(handshakes_busy, "an initiation while as many as may be are being worked on")        \
  X(handshake_unexpected, "a response or cookie that nothing waits for")                 \
  /* An opened inner packet. */                                                          \
  X(malformed_inner, "an inner packet whose own lengths contradict each other")          \
  X(spoofed_source, "an inner source address that the peer does not own")                \
  X(throttled_rx, "beyond what is taken from its peer, or from all")                     \
  X(tun_write_failed, "the kernel refused a packet written to TUN")                      \
  /* A packet from TUN. */                                                               \
  X(tun_queue_full, "the device's queue was full, as the kernel counts it")              \
  X(bad_tun_packet, "a packet from TUN that is no whole IPv4 or IPv6 packet")            \
  X(no_route, "no peer owns the inner destination")                                      \
  X(no_session, "the owning peer has no live session")                                   \
  X(no_path, "the session has no usable path")                                           \
  X(throttled_tx, "beyond what is sent to its peer, or to all")                          \
  X(too_big, "does not fit the tunnel's MTU; answered with ICMP where allowed")          \
  X(keys_exhausted, "the lane may seal nothing more before its next epoch is confirmed") \
  X(socket_full, "the socket's send queue was full")                                     \
  X(send_failed, "the kernel refused to send")                                           \
  /* A packet from TUN that leaves past the tunnel, by rule. */                          \
  X(egress_blocked, "a rule says that it goes nowhere")                                  \
  X(egress_waits, "its TCP flow waits for the other end, and asks again")                \
  X(egress_evicted, "its TCP flow waited longest for the other end, and one more began") \
  X(egress_no_flow, "of a TCP flow past the tunnel that is over, or never began")        \
  X(egress_full, "no room for another flow, or for its datagrams, past the tunnel")      \
  X(egress_unsupported, "of a kind that no way past the tunnel carries")                 \
  /* Bounds inside braid. */                                                             \
  X(bond_full, "the worker's memory for bonds was used up")                              \
  X(no_buffer, "the worker's packet pool was empty")                                     \
  X(no_lane_state, "the worker's lane pool was empty")                                   \
  X(inbox_full, "another worker's or the slow path's inbox was full")

enum class Drop : uint8_t {
#define X(name, meaning) name,
  BRAID_DROP_REASONS(X)
#undef X
};

inline constexpr std::array kDropNames = {
#define X(name, meaning) std::string_view(#name),
    BRAID_DROP_REASONS(X)
#undef X
};

inline constexpr size_t kDropReasons = kDropNames.size();

class DropCounters {
 public:
  void Count(Drop reason, uint64_t packets = 1) {
    counters_[static_cast<size_t>(reason)].Add(packets);
  }
  uint64_t Get(Drop reason) const { return counters_[static_cast<size_t>(reason)].Get(); }

 private:
  std::array<Counter, kDropReasons> counters_;
};

}  // namespace braid
