// What the two ends of a bond tell each other, as sealed control messages (docs/wire.md). Times are
// microseconds of each end's own clock, in 32 bits that wrap; so are the counters.
#pragma once

#include <array>
#include <cstdint>

#include "base/clock.h"
#include "base/limits.h"

namespace braid {

inline uint32_t ToWireUs(TimeNs time_ns) { return static_cast<uint32_t>(time_ns / kMicrosecondNs); }

// Receiver to sender: what came over a path since the session began.
struct PathReport {
  uint8_t path = 0;
  bool has_probe = false;
  uint32_t datagrams = 0;         // opened
  uint32_t expected = 0;          // as far as their path_seq tells
  uint32_t bytes = 0;             // of whole datagrams
  uint32_t probe_sent_us = 0;     // of the newest probe, by the sender's clock
  uint32_t probe_arrived_us = 0;  // by the receiver's
};

struct BondReport {
  uint32_t made_us = 0;  // by the receiver's clock
  uint8_t paths_used = 0;
  std::array<PathReport, kMaxPaths> paths;
};

// Receiver to sender: datagrams of a lane and path that are proven lost.
struct MissingRange {
  uint8_t lane = 0;
  uint8_t path = 0;
  uint16_t count = 0;
  uint32_t first_path_seq = 0;
};

struct MissingReport {
  static constexpr size_t kMaxRanges = 32;
  uint8_t ranges_used = 0;
  std::array<MissingRange, kMaxRanges> ranges;
};

// Sender to receiver, over each path: asks for reports, measures the path, and says how the lanes
// are to be put in order.
struct BondProbe {
  static constexpr size_t kMaxLanes = 8;

  uint32_t sent_us = 0;
  uint16_t report_every_ms = 0;  // 0: no reports are wanted
  uint16_t hold_ms = 0;          // how long a missing packet may still come by itself; 0: no order
  uint16_t repair_ms = 0;  // how long one that is lost may take to be sent again; 0: it is not
  // Of lanes that were used lately: what was sent on them over this path before the probe is older
  // than this sequence. So silence on a path is no doubt.
  struct LaneMark {
    uint8_t lane = 0;
    uint64_t next_sequence = 0;
  };
  uint8_t lanes_used = 0;
  std::array<LaneMark, kMaxLanes> lanes;
};

}  // namespace braid
