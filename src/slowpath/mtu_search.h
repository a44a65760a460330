// Finds the largest inner packet that a path carries in this direction, without ICMP: probes of
// some sizes go out, and those that the other end has answered came through (RFC 8899). Time and
// answers go in, probes come out: no I/O here.
//
//   Rounds: the largest size that the link takes; if that does not come through, the common sizes
//   below it all at once; then halving what is left between the largest that came through and the
//   smallest that did not. Each round also sends a size that is known to pass: when that is not
//   answered either, the path is silent, and the round tells nothing of sizes.
//
// Sizes are those of inner packets, unless said otherwise.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/functional/function_ref.h"
#include "base/clock.h"
#include "base/limits.h"

namespace braid {

class MtuSearch {
 public:
  struct Probe {
    uint64_t token = 0;
    uint16_t mtu = 0;
  };

  static constexpr DurationNs kRepeatNs = 600 * kSecondNs;  // what was found is looked at again
  static constexpr DurationNs kRetryNs = kSecondNs;         // of a silent path
  static constexpr DurationNs kTooSmallRetryNs = 10 * kSecondNs;  // of one that carries too little
  static constexpr int kTries = 4;                                // of a size

  // Begins anew, for a path that takes `largest` at most and puts `overhead_bytes` around an inner
  // packet. Until something is found what is known stands.
  void Start(uint16_t largest, int overhead_bytes, TimeNs now_ns);
  // Nothing is sent any more, and nothing is known.
  void Stop() { *this = {}; }
  // Large packets do not seem to come through any more: looks now.
  void SuspectBlackHole(TimeNs now_ns);

  // What is to be sent now; to be called until nothing is. A probe counts as lost after
  // `timeout_ns`. `draw_token` gives 64 random bits.
  std::optional<Probe> Next(TimeNs now_ns, DurationNs timeout_ns,
                            absl::FunctionRef<uint64_t()> draw_token);
  // The other end has had a probe. False when it is none of this round.
  bool OnProbed(uint64_t token, uint16_t mtu, TimeNs now_ns);

  // When Next() has something to do; kNever.
  static constexpr TimeNs kNever = UINT64_MAX;
  TimeNs due_ns() const { return due_ns_; }
  // The largest that came through; 0: not known.
  uint16_t mtu() const { return mtu_; }
  // Not even kMinMtu comes through.
  bool too_small() const { return too_small_; }

 private:
  struct Candidate {
    uint16_t mtu = 0;
    uint64_t token = 0;
    int tries = 0;
    bool answered = false;
  };

  void BeginRound(std::vector<uint16_t> sizes, TimeNs now_ns);
  void EndRound(TimeNs now_ns);
  void Settle(TimeNs now_ns);
  std::vector<uint16_t> StepsBetween() const;

  uint16_t largest_ = 0;  // 0: stopped
  int overhead_bytes_ = 0;
  uint16_t floor_ = 0;            // the largest that came through in this search
  uint32_t ceiling_ = 0;          // the smallest that did not
  bool stepped_ = false;          // the common sizes were tried
  std::vector<Candidate> round_;  // the first is the one that is known to pass
  size_t next_ = 0;               // of this try, the one to be sent
  TimeNs due_ns_ = kNever;
  uint16_t mtu_ = 0;
  bool too_small_ = false;
};

}  // namespace braid
