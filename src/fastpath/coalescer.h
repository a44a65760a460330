// Joins opened inner packets into super-packets for TUN: consecutive segments of one TCP flow, or
// equal datagrams of one UDP flow, become one write that gathers their payloads behind one header.
// It undoes exactly what a segmenter does, so that the kernel's own segmentation gives back the
// packets that were joined (rules as in net/ipv4/tcp_offload.c and udp_offload.c; RFC 6864 for the
// identification of packets that must not be fragmented).
//
// Packets of one flow never overtake each other, nor do fragments, which show no ports, overtake or
// fall behind anything between their two addresses. A packet whose transport checksum is
// whole is joined only after the checksum was verified, because the kernel writes a new one.
#pragma once

#include <sys/uio.h>

#include <array>
#include <span>

#include "base/bytes.h"
#include "fastpath/inner_packet.h"
#include "io/backend.h"
#include "io/vnet_header.h"

namespace braid {

class Coalescer {
 public:
  // What may be joined: what the device takes.
  struct Options {
    bool tcp = true;
    bool udp = true;
  };
  explicit Coalescer(const Options& options) : options_(options) {}

  // Takes a whole packet as ParseInner saw it. Its bytes, and kVnetHeaderBytes in front of them,
  // are overwritten and stay borrowed until Clear(). False when full: finish, flush, clear, again.
  bool Add(MutableBytes packet, const InnerPacket& inner, bool partial_checksum);

  // Writes the headers of what was joined. One request for each packet or super-packet.
  std::span<WriteRequest> Finish(int tun_fd);
  void Clear();

  bool empty() const { return runs_used_ == 0; }
  // Packets that went into a request.
  size_t PacketsIn(size_t request) const { return runs_[request].parts_used; }

 private:
  static constexpr size_t kMaxParts = 64;
  static constexpr size_t kMaxRuns = 256;
  static constexpr size_t kMaxOpenRuns = 8;
  static_assert(kMaxRuns <= Backend::kMaxWrites);

  // One write being gathered.
  struct Run {
    std::array<iovec, kMaxParts> parts;
    size_t parts_used;
    size_t bytes;          // of the whole inner packet
    size_t payload_bytes;  // of the first packet, and so of each but the last
    uint8_t* packet;       // the first one, whose headers become those of all
    InnerPacket inner;
    uint32_t next_tcp_sequence;
    bool partial_checksum;
    bool verified;  // the first packet's checksum, where it is whole
    uint8_t last_tcp_flags;
  };

  bool MayJoin(Bytes packet, const InnerPacket& inner) const;
  bool TryAppend(Run& run, MutableBytes packet, const InnerPacket& inner, bool partial_checksum);
  void CloseRunsOfSameFlow(Bytes packet, const InnerPacket& inner);
  void CloseRun(size_t open_slot);
  static void WriteHeaders(Run& run);

  Options options_;
  size_t runs_used_ = 0;
  size_t open_used_ = 0;
  std::array<uint16_t, kMaxOpenRuns> open_{};  // indices of runs that may still grow, oldest first
  std::array<WriteRequest, kMaxRuns> requests_;
  std::array<Run, kMaxRuns> runs_;
};

}  // namespace braid
