// A fixed number of packet buffers, allocated at start and owned by one thread.
//
// The owner takes and returns without synchronisation. A handle dropped on another thread goes to
// a ring that the owner empties when its own free list runs dry; that ring holds every buffer of
// the pool, so a return never fails. The memory is reserved at start and touched on first use.
#pragma once

#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "base/packet.h"
#include "base/ring.h"

namespace braid {

class PacketPool {
 public:
  static absl::StatusOr<std::unique_ptr<PacketPool>> Create(int buffers);
  ~PacketPool();
  PacketPool(const PacketPool&) = delete;
  PacketPool& operator=(const PacketPool&) = delete;

  // The calling thread becomes the owner: from here on only it takes.
  void BindToThisThread();

  // Empty when every buffer is in use. The window is empty and stands behind the headroom.
  PacketPtr Take();
  int available() const { return available_; }

 private:
  friend struct PacketReleaser;
  explicit PacketPool(int buffers);
  void Return(Packet* packet);
  void CollectReturned();

  const void* owner_ = nullptr;
  uint8_t* memory_ = nullptr;
  size_t memory_bytes_ = 0;
  std::vector<Packet> packets_;
  Packet* free_ = nullptr;
  int available_ = 0;
  Ring<Packet*> returned_;
};

}  // namespace braid
