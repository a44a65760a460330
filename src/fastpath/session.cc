#include "fastpath/session.h"

#include <sys/mman.h>

#include <algorithm>
#include <new>

namespace braid {

void Session::BeginAnew() {
  send_keypair = nullptr;
  mtu = 0;
  active_path = 0;
  has_path = false;
  paths = {};
  std::fill(lanes.begin(), lanes.end(), nullptr);
  handshake_asked_ns = 0;
  direct_since_ns = 0;
  direct_packets = 0;
  for (PathTraffic& path : traffic) path.BeginAnew();
  for (Counter* counter : {&rx_bytes, &tx_bytes, &rx_packets, &tx_packets}) counter->Reset();
  last_rx_ns.store(0, std::memory_order_relaxed);
  last_tx_ns.store(0, std::memory_order_relaxed);
}

LanePool::LanePool(size_t capacity) : capacity_(capacity) {
  void* memory = mmap(nullptr, capacity_ * sizeof(LaneState), PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  lanes_ = static_cast<LaneState*>(memory);
  returned_.reserve(capacity_);
}

LanePool::~LanePool() { munmap(lanes_, capacity_ * sizeof(LaneState)); }

LaneState* LanePool::Take(uint8_t lane) {
  LaneState* memory = nullptr;
  if (!returned_.empty()) {
    memory = returned_.back();
    returned_.pop_back();
  } else if (touched_ < capacity_) {
    memory = lanes_ + touched_++;
  } else {
    return nullptr;
  }
  LaneState* state = new (memory) LaneState();
  state->id = lane;
  return state;
}

void LanePool::Return(LaneState* lane) { returned_.push_back(lane); }

}  // namespace braid
