#include "fastpath/trains.h"

#include <cerrno>

namespace braid {
namespace {

// How long a source is believed without having been heard again. A client keeps its path alive by
// keepalives, but not each lane.
constexpr DurationNs kSourceFreshNs = 15 * kSecondNs;

}  // namespace

const Route& RouteOf(const Session& session, const Sources& sources, uint8_t path, TimeNs now_ns) {
  const PathState& known = session.paths[path];
  const Sources::Path& own = sources.paths[path];
  const bool usable = own.source.current().remote.is_set() && own.version == known.version &&
                      now_ns < own.source.heard_ns() + kSourceFreshNs;
  return usable ? own.source.current() : known.route;
}

bool Trains::Fits(const Train& train, size_t datagram_bytes) const {
  return !train.closed && datagram_bytes <= train.request.datagram_bytes &&
         train.buffer->length + datagram_bytes <= kMaxTrainBytes &&
         train.datagrams < static_cast<uint32_t>(state_.options.max_gso_datagrams);
}

Trains::Train* Trains::For(Session& session, const void* stream, uint8_t path, const Route& route,
                           int fd, size_t datagram_bytes) {
  for (size_t i = used_; i-- > 0;) {
    Train& train = trains_[i];
    if (train.stream != stream || train.path != path) continue;
    if (train.closed) break;
    const bool same_way = train.request.to == route.remote && train.request.from == route.local;
    if (same_way && Fits(train, datagram_bytes)) return &train;
    train.closed = true;
    break;
  }
  if (used_ == trains_.size()) FlushAll();
  if (fd < 0 || !route.remote.is_set()) {
    state_.drops.Count(Drop::no_path);
    return nullptr;
  }
  Train& train = trains_[used_];
  train.buffer = state_.train_pool->Take();
  if (train.buffer == nullptr) {
    state_.drops.Count(Drop::no_buffer);
    return nullptr;
  }
  ++used_;
  train.session = &session;
  train.stream = stream;
  train.path = path;
  train.closed = false;
  train.datagrams = 0;
  train.request = {};
  train.request.fd = fd;
  train.request.to = route.remote;
  train.request.from = route.local;
  train.request.datagram_bytes = static_cast<uint16_t>(datagram_bytes);
  return &train;
}

void Trains::Add(Train& train, size_t datagram_bytes) {
  train.buffer->length += static_cast<uint32_t>(datagram_bytes);
  ++train.datagrams;
  // A shorter datagram can only be the last of a segmented send.
  if (datagram_bytes < train.request.datagram_bytes) train.closed = true;
}

void Trains::Close() {
  for (size_t i = 0; i < used_; ++i) {
    Train& train = trains_[i];
    train.request.payload = train.buffer->bytes();
    train.request.segmentation_refused =
        state_.segmentation_refused.load(std::memory_order_relaxed);
    state_.backend->Send(train.request);
  }
}

void Trains::AfterFlush() {
  for (size_t i = 0; i < used_; ++i) {
    Train& train = trains_[i];
    if (train.request.segmentation_refused) {
      state_.segmentation_refused.store(true, std::memory_order_relaxed);
    }
    switch (train.request.error) {
      case 0: {
        PathTraffic& traffic = train.session->traffic[train.path];
        traffic.tx_bytes.Add(train.buffer->length);
        traffic.tx_datagrams.Add(train.datagrams);
        break;
      }
      case EAGAIN:
      case ENOBUFS:
        state_.drops.Count(Drop::socket_full, train.datagrams);
        break;
      case EMSGSIZE:
        state_.drops.Count(Drop::too_big, train.datagrams);
        break;
      default:
        state_.drops.Count(Drop::send_failed, train.datagrams);
        break;
    }
    train.buffer.reset();
  }
  used_ = 0;
}

// When the trains have used every buffer, or a socket that they go through is to be closed.
void Trains::FlushAll() {
  Close();
  state_.backend->Flush();
  AfterFlush();
}

}  // namespace braid
