// A peer as one worker sees it: the keys to send under, the paths, and those of its lanes that the
// worker owns. It is changed by that worker only; others read no more than the counters: the slow
// path, which changes it by command, and the worker of the peer's bond.
#pragma once

#include <array>
#include <memory>
#include <vector>

#include "base/counters.h"
#include "base/limits.h"
#include "fastpath/lane.h"
#include "fastpath/path_set.h"

namespace braid {

// Where packets come from over each path, and may be answered.
struct Sources {
  struct Path {
    SourceTracker source;
    uint32_t version = 0;  // of the PathState that the source was learned under
  };
  std::array<Path, kMaxPaths> paths;
  TimeNs hello_sent_ns = 0;
};

struct LaneState {
  uint8_t id = 0;
  LaneSender sender;
  LaneReceiver receiver;
  Sources sources;
};

// A lane of a worker, or one of a bond, which has its sources for all its lanes.
struct LaneRef {
  uint8_t id = 0;
  LaneSender* sender = nullptr;
  LaneReceiver* receiver = nullptr;
  Sources* sources = nullptr;  // tells trains apart too: what has the same sources may share one

  explicit operator bool() const { return sender != nullptr; }
};
inline LaneRef RefOf(LaneState& lane) {
  return {lane.id, &lane.sender, &lane.receiver, &lane.sources};
}

struct PathTraffic {
  Counter rx_bytes;  // of whole datagrams
  Counter tx_bytes;
  Counter rx_datagrams;
  Counter rx_expected;  // datagrams that the peer has sent, as far as its path_seq tells
  Counter tx_datagrams;

  void BeginAnew() {
    for (Counter* one : {&rx_bytes, &tx_bytes, &rx_datagrams, &rx_expected, &tx_datagrams}) {
      one->Reset();
    }
  }
};

struct Session {
  const Keypair* send_keypair = nullptr;
  uint16_t mtu = 0;  // the largest inner packet that both ends agreed on
  uint8_t active_path = 0;
  bool has_path = false;
  std::array<PathState, kMaxPaths> paths;
  std::vector<LaneState*> lanes;  // by lane / workers; nullptr until the lane's first packet
  TimeNs handshake_asked_ns = 0;
  // What was sent without the bond since its worker was told of that.
  TimeNs direct_since_ns = 0;
  uint32_t direct_packets = 0;

  // Read by others.
  std::array<PathTraffic, kMaxPaths> traffic;
  Counter rx_bytes;  // of inner packets
  Counter tx_bytes;
  Counter rx_packets;
  Counter tx_packets;
  std::atomic<TimeNs> last_rx_ns{0};  // an authentic packet
  std::atomic<TimeNs> last_tx_ns{0};  // inner traffic

  // As it was made, for another peer. `lanes` go back to their pool before.
  void BeginAnew();
};

// Lane states for one worker: the address space is reserved at start, memory is touched when a lane
// first carries a packet. A lane that is given back is used again first.
class LanePool {
 public:
  explicit LanePool(size_t capacity);
  ~LanePool();
  LanePool(const LanePool&) = delete;
  LanePool& operator=(const LanePool&) = delete;

  LaneState* Take(uint8_t lane);  // nullptr when all are in use
  void Return(LaneState* lane);

 private:
  LaneState* lanes_ = nullptr;
  size_t capacity_;
  size_t touched_ = 0;
  std::vector<LaneState*> returned_;
};

}  // namespace braid
