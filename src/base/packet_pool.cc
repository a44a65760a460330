#include "base/packet_pool.h"

#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <cerrno>

#include "absl/status/status.h"
#include "base/limits.h"

namespace braid {
namespace {

thread_local char this_thread;  // its address tells threads apart

}  // namespace

absl::StatusOr<std::unique_ptr<PacketPool>> PacketPool::Create(int buffers) {
  std::unique_ptr<PacketPool> pool(new PacketPool(buffers));
  if (pool->memory_ == nullptr) {
    return absl::ErrnoToStatus(errno, "cannot reserve memory for packet buffers");
  }
  return pool;
}

PacketPool::PacketPool(int buffers)
    : packets_(buffers), returned_(std::bit_ceil(static_cast<unsigned>(std::max(buffers, 2)))) {
  memory_bytes_ = static_cast<size_t>(buffers) * kPacketBufferBytes;
  void* memory = mmap(nullptr, memory_bytes_, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) return;
  memory_ = static_cast<uint8_t*>(memory);
  // The first buffers end up on top of the free list, so a quiet daemon touches few pages.
  for (int i = buffers - 1; i >= 0; --i) {
    packets_[i].buffer = memory_ + static_cast<size_t>(i) * kPacketBufferBytes;
    packets_[i].home = this;
    packets_[i].next_free = free_;
    free_ = &packets_[i];
  }
  available_ = buffers;
}

PacketPool::~PacketPool() {
  if (memory_ != nullptr) munmap(memory_, memory_bytes_);
}

void PacketPool::BindToThisThread() { owner_ = &this_thread; }

PacketPtr PacketPool::Take() {
  if (free_ == nullptr) CollectReturned();
  if (free_ == nullptr) return nullptr;
  Packet* packet = free_;
  free_ = packet->next_free;
  --available_;
  packet->offset = kPacketHeadroomBytes;
  packet->length = 0;
  return PacketPtr(packet);
}

void PacketPool::Return(Packet* packet) {
  if (owner_ != &this_thread) {
    returned_.TryPush(std::move(packet));
    return;
  }
  packet->next_free = free_;
  free_ = packet;
  ++available_;
}

void PacketPool::CollectReturned() {
  Packet* packet = nullptr;
  while (returned_.TryPop(packet)) {
    packet->next_free = free_;
    free_ = packet;
    ++available_;
  }
}

void PacketReleaser::operator()(Packet* packet) const { packet->home->Return(packet); }

}  // namespace braid
