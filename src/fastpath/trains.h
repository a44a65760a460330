// The sends of one worker between two flushes. A train is datagrams of one size for one
// destination, sealed behind each other into one buffer; it leaves as one segmented send.
#pragma once

#include <array>

#include "fastpath/worker_state.h"

namespace braid {

class Trains {
 public:
  struct Train {
    PacketPtr buffer;
    Session* session = nullptr;
    const void* stream = nullptr;
    uint8_t path = 0;
    bool closed = false;
    uint32_t datagrams = 0;
    SendRequest request;

    // Where the next datagram is sealed to.
    uint8_t* end() { return buffer->data() + buffer->length; }
  };

  explicit Trains(WorkerState& state) : state_(state) {}

  // The train that the next datagram joins: the stream's open one on this path if it fits, else a
  // new one through the socket `fd`. nullptr when it has to be dropped, which is counted. Datagrams
  // of one stream and path keep their order.
  Train* For(Session& session, const void* stream, uint8_t path, const Route& route, int fd,
             size_t datagram_bytes);
  bool Fits(const Train& train, size_t datagram_bytes) const;
  // A datagram was sealed at end().
  void Add(Train& train, size_t datagram_bytes);

  // Queues every train with the backend.
  void Close();
  // Settles them once the backend has flushed.
  void AfterFlush();
  // All of that at once, in the middle of a batch.
  void FlushAll();

 private:
  WorkerState& state_;
  std::array<Train, kTrainBuffers> trains_;
  size_t used_ = 0;
};

// The way that packets are answered at on `path`: the proven source if it was heard lately, else
// the path's.
const Route& RouteOf(const Session& session, const Sources& sources, uint8_t path, TimeNs now_ns);

}  // namespace braid
