// The contract between a worker and the kernel: packets arrive in batches, and what a worker sends
// and writes is queued and then flushed as one. One backend belongs to one worker and is used by
// its thread only.
//
// Arrivals: Poll() hands each packet, with its buffer, to the sink. The sink owns the buffer.
// Departures: Send() and Write() only note a request. The request and the bytes behind it stay
// alive and unchanged until Flush() returns; by then the kernel has taken or refused each one, and
// `error` tells which. Requests leave in the order in which they were queued, per descriptor.
//
// A descriptor that was added stays open until the backend is gone, or until RemoveSocket() has
// returned: its number must not come to mean another file. Nothing here allocates once the backend
// is made, but for the text of an error.
#pragma once

#include <sys/uio.h>

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>

#include "absl/status/statusor.h"
#include "base/address.h"
#include "base/bytes.h"
#include "base/clock.h"
#include "base/packet_pool.h"

namespace braid {

// What one read of a UDP socket brought: datagrams of equal size behind each other, all from one
// source; only the last may be shorter.
struct Arrival {
  uint16_t socket_id;       // as given to AddSocket
  uint16_t datagram_bytes;  // of each but the last
  Endpoint source;
  IpAddress local;  // the address that it came to
  uint32_t interface_index;
  uint64_t wall_ns;  // when the kernel took it in, by WallNowNs(); 0: not told
};

// Datagrams of equal size behind each other (only the last may be shorter), for one destination.
struct SendRequest {
  int fd = -1;
  Endpoint to;
  IpAddress from;  // the source address to use; unset: the kernel's choice
  Bytes payload;
  uint16_t datagram_bytes = 0;
  // Set by the worker once a socket's device has refused to segment, and by Flush when it does so.
  bool segmentation_refused = false;
  int error = 0;  // errno, set by Flush
};

// One vnet header and packet for TUN, gathered.
struct WriteRequest {
  int fd = -1;
  std::span<const iovec> parts;
  int error = 0;  // errno, set by Flush
};

class Backend {
 public:
  class Sink {
   public:
    // `packet` holds the vnet header and the packet.
    virtual void OnTunPacket(PacketPtr packet) = 0;
    // `packet` holds the datagrams.
    virtual void OnDatagrams(PacketPtr packet, const Arrival& arrival) = 0;

   protected:
    ~Sink() = default;
  };

  // At most this many requests of each kind between two flushes. One through a descriptor that was
  // not added, or was removed, fails with EBADF.
  static constexpr int kMaxSends = 128;
  static constexpr int kMaxWrites = 512;

  virtual ~Backend() = default;
  virtual std::string_view name() const = 0;

  virtual absl::Status AddTun(int fd) = 0;
  virtual absl::Status AddSocket(int fd, uint16_t socket_id) = 0;
  // An eventfd: writing to it ends a Poll().
  virtual absl::Status AddWake(int fd) = 0;
  // Lets go of a socket, at any time, also within a call of the sink, but not between a Send()
  // through it and the next Flush(). Nothing of it reaches the sink from here on, also when its
  // number is added again at once. The file itself is let go of within the next few Polls.
  virtual void RemoveSocket(int fd) = 0;

  // Waits until something arrives, the wake descriptor is written, or `timeout_ns` has passed
  // (0: does not wait), then hands what is there to the sink, one batch at most.
  virtual void Poll(DurationNs timeout_ns, Sink& sink) = 0;

  virtual void Send(SendRequest& request) = 0;
  virtual void Write(WriteRequest& request) = 0;
  virtual void Flush() = 0;
};

enum class BackendChoice { kAuto, kUring, kEpoll };

// Both take their buffers for arrivals from `pool`, which the same thread owns and which outlives
// the backend. Call it on the worker's thread.
absl::StatusOr<std::unique_ptr<Backend>> MakeUringBackend(PacketPool& pool);
absl::StatusOr<std::unique_ptr<Backend>> MakeEpollBackend(PacketPool& pool);

// kAuto is io_uring where the kernel allows it, and epoll else; `fallback_reason` then says why.
absl::StatusOr<std::unique_ptr<Backend>> MakeBackend(BackendChoice choice, PacketPool& pool,
                                                     std::string& fallback_reason);

}  // namespace braid
