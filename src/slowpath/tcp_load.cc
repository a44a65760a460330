#include "slowpath/tcp_load.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>
#include <array>

#include "io/socket_options.h"

namespace braid {
namespace {

constexpr size_t kWriteBytes = 128 * 1024;
constexpr size_t kTcpReadBytes = 256 * 1024;

// What is sent, by every stream of the process; and where what comes is left, of which nobody
// reads anything.
const std::vector<uint8_t>& Payload() {
  static const std::vector<uint8_t> payload(kWriteBytes, 0x5a);
  return payload;
}

}  // namespace

TcpLoad::TcpLoad(std::vector<Stream> streams, int threads)
    : streams_(std::move(streams)),
      max_threads_(static_cast<size_t>(std::max(threads, 1))),
      stop_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
      open_streams_(streams_.size()) {}

TcpLoad::~TcpLoad() {
  eventfd_write(stop_.get(), 1);
  for (std::thread& thread : threads_) thread.join();
  // What was not taken yet would keep the kernel busy with nobody left to see it.
  for (const Stream& stream : streams_) SetResetOnClose(stream.fd.get());
}

void TcpLoad::Start(TimeNs end_ns) {
  const size_t threads = std::min(max_threads_, streams_.size());
  for (size_t thread = 0; thread < threads; ++thread) {
    std::vector<Stream*> share;
    for (size_t i = thread; i < streams_.size(); i += threads) share.push_back(&streams_[i]);
    threads_.emplace_back(&TcpLoad::Pump, this, std::move(share), end_ns);
  }
}

// Runs until each stream has ended, or stop_ is written.
void TcpLoad::Pump(std::vector<Stream*> streams, TimeNs end_ns) {
  pthread_setname_np(pthread_self(), "braid-load");
  // However late this thread has come to run, each stream sends something.
  for (Stream* stream : streams) {
    if (stream->sends) Send(*stream);
  }
  std::vector<pollfd> polled;
  while (!streams.empty()) {
    const TimeNs now_ns = MonotonicNowNs();
    const bool sending = now_ns < end_ns;
    if (!sending) {
      for (Stream*& stream : streams) {
        if (!stream->sends) continue;
        shutdown(stream->fd.get(), SHUT_WR);
        open_streams_.fetch_sub(1, std::memory_order_release);
        stream = nullptr;
      }
      std::erase(streams, nullptr);
    }
    polled.assign(1, {stop_.get(), POLLIN, 0});
    for (const Stream* stream : streams) {
      polled.push_back({stream->fd.get(), static_cast<short>(stream->sends ? POLLOUT : POLLIN), 0});
    }
    const DurationNs wait_ns = sending ? end_ns - now_ns : kSecondNs;
    const timespec timeout{static_cast<time_t>(wait_ns / kSecondNs),
                           static_cast<long>(wait_ns % kSecondNs)};
    if (ppoll(polled.data(), polled.size(), &timeout, nullptr) <= 0) continue;
    if (polled[0].revents != 0) return;
    for (size_t i = 0; i < streams.size(); ++i) {
      if (polled[i + 1].revents == 0) continue;
      Stream& stream = *streams[i];
      if (stream.sends ? Send(stream) : Receive(stream)) continue;
      open_streams_.fetch_sub(1, std::memory_order_release);
      streams[i] = nullptr;
    }
    std::erase(streams, nullptr);
  }
}

// False when the stream has ended.
bool TcpLoad::Send(Stream& stream) const {
  const ssize_t sent =
      send(stream.fd.get(), Payload().data(), Payload().size(), MSG_DONTWAIT | MSG_NOSIGNAL);
  return sent >= 0 || errno == EAGAIN || errno == EINTR;
}

bool TcpLoad::Receive(Stream& stream) {
  thread_local std::vector<uint8_t> buffer(kTcpReadBytes);
  const ssize_t got = recv(stream.fd.get(), buffer.data(), buffer.size(), MSG_DONTWAIT);
  if (got < 0) return errno == EAGAIN || errno == EINTR;
  if (got == 0) return false;
  rx_bytes_.fetch_add(static_cast<uint64_t>(got), std::memory_order_relaxed);
  last_rx_ns_.store(MonotonicNowNs(), std::memory_order_relaxed);
  return true;
}

}  // namespace braid
