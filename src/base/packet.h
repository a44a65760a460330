// A packet buffer and its owner's handle. A Packet has one owner at a time; dropping the handle
// returns the buffer to the pool that it came from, whichever thread drops it.
#pragma once

#include <cstdint>
#include <memory>

#include "base/bytes.h"

namespace braid {

class PacketPool;

struct Packet {
  uint8_t* buffer = nullptr;  // kPacketBufferBytes, 64-byte aligned
  uint32_t offset = 0;        // the data's window inside the buffer
  uint32_t length = 0;
  PacketPool* home = nullptr;
  Packet* next_free = nullptr;

  uint8_t* data() { return buffer + offset; }
  MutableBytes bytes() { return {buffer + offset, length}; }
};

struct PacketReleaser {
  void operator()(Packet* packet) const;
};
using PacketPtr = std::unique_ptr<Packet, PacketReleaser>;

}  // namespace braid
