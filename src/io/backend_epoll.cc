// The backend for where io_uring is not allowed: readiness from epoll, then plain non-blocking
// calls, each as often as it brings something.
#include <errno.h>
#include <fcntl.h>
#include <sys/epoll.h>

#include <algorithm>
#include <array>
#include <vector>

#include "absl/status/status.h"
#include "base/limits.h"
#include "io/backend.h"
#include "io/datagram_message.h"
#include "io/unique_fd.h"

namespace braid {
namespace {

constexpr int kEvents = 32;
constexpr int kReadsPerSocket = 16;  // before the next descriptor has its turn

class EpollBackend final : public Backend {
 public:
  EpollBackend(PacketPool& pool, UniqueFd epoll) : pool_(pool), epoll_(std::move(epoll)) {
    added_.reserve(kMaxDescriptors);
  }

  std::string_view name() const override { return "epoll"; }

  absl::Status AddTun(int fd) override { return Add(fd, Source::kTun, 0); }
  absl::Status AddSocket(int fd, uint16_t socket_id) override {
    return Add(fd, Source::kSocket, socket_id);
  }
  absl::Status AddWake(int fd) override { return Add(fd, Source::kWake, 0); }

  void RemoveSocket(int fd) override {
    if (!IsAdded(fd)) return;
    added_[static_cast<size_t>(fd)] = false;
    epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd, nullptr);
    // What this batch still has of it is void, or another socket of this number would be read.
    for (int i = 0; i < ready_; ++i) {
      if (static_cast<int>(events_[i].data.u64 & 0xffffffff) == fd) events_[i].data.u64 = kNothing;
    }
    if (reading_fd_ == fd) reading_fd_ = -1;
  }

  void Poll(DurationNs timeout_ns, Sink& sink) override {
    const timespec timeout{static_cast<time_t>(timeout_ns / kSecondNs),
                           static_cast<long>(timeout_ns % kSecondNs)};
    socket_reads_left_ = kReceiveBuffers;
    ready_ = std::max(0, epoll_pwait2(epoll_.get(), events_.data(), kEvents, &timeout, nullptr));
    for (int i = 0; i < ready_; ++i) {
      const uint64_t tag = events_[i].data.u64;
      const int fd = static_cast<int>(tag & 0xffffffff);
      switch (static_cast<Source>(tag >> 48)) {
        case Source::kTun:
          ReadTun(fd, sink);
          break;
        case Source::kSocket:
          ReadSocket(fd, static_cast<uint16_t>(tag >> 32), sink);
          break;
        case Source::kWake:
          ReadWake(fd);
          break;
        case Source::kNone:
          break;
      }
    }
    ready_ = 0;
  }

  void Send(SendRequest& request) override {
    if (!IsAdded(request.fd)) {
      request.error = EBADF;
      return;
    }
    if (request.segmentation_refused) return SendUnsegmented(request);
    SendMessage message;
    message.Fill(request, request.payload, IsSegmented(request));
    const bool sent = sendmsg(request.fd, &message.header, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0;
    FinishSend(request, sent ? 0 : errno);
  }

  void Write(WriteRequest& request) override {
    if (!IsAdded(request.fd)) {
      request.error = EBADF;
      return;
    }
    const ssize_t written =
        writev(request.fd, request.parts.data(), static_cast<int>(request.parts.size()));
    request.error = written < 0 ? errno : 0;
  }

  void Flush() override {}  // each request was served when it was queued

 private:
  enum class Source : uint64_t { kTun, kSocket, kWake, kNone };
  static constexpr uint64_t kNothing = static_cast<uint64_t>(Source::kNone) << 48 | 0xffffffff;

  bool IsAdded(int fd) const {
    return fd >= 0 && static_cast<size_t>(fd) < added_.size() && added_[static_cast<size_t>(fd)];
  }

  absl::Status Add(int fd, Source source, uint16_t id) {
    if (fd >= kMaxDescriptors) {
      return absl::ResourceExhaustedError("epoll: too many open descriptors");
    }
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.u64 = static_cast<uint64_t>(source) << 48 | static_cast<uint64_t>(id) << 32 |
                     static_cast<uint32_t>(fd);
    if (epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) != 0) {
      return absl::ErrnoToStatus(errno, "cannot watch a descriptor with epoll");
    }
    if (static_cast<size_t>(fd) >= added_.size()) added_.resize(static_cast<size_t>(fd) + 1);
    added_[static_cast<size_t>(fd)] = true;
    return absl::OkStatus();
  }

  void ReadTun(int fd, Sink& sink) {
    for (int i = 0; i < kTunReadBatch; ++i) {
      PacketPtr packet = pool_.Take();
      if (packet == nullptr) return;  // the packets wait in TUN's own queue
      const ssize_t bytes = read(fd, packet->data(), kPacketDataBytes);
      if (bytes <= 0) return;
      packet->length = static_cast<uint32_t>(bytes);
      sink.OnTunPacket(std::move(packet));
    }
  }

  void ReadSocket(int fd, uint16_t id, Sink& sink) {
    reading_fd_ = fd;
    for (int i = 0; i < kReadsPerSocket && socket_reads_left_ > 0; ++i, --socket_reads_left_) {
      if (reading_fd_ != fd) return;  // removed by the sink
      PacketPtr packet = pool_.Take();
      if (packet == nullptr) return;
      ReceiveMessage message({packet->data(), kPacketDataBytes});
      const ssize_t bytes = recvmsg(fd, &message.header, MSG_DONTWAIT);
      if (bytes < 0) {
        // An error that the network reported on an earlier send says nothing about what waits.
        if (errno == EAGAIN || errno == EINTR) return;
        continue;
      }
      packet->length = static_cast<uint32_t>(bytes);
      Arrival arrival{id, 0, {}, {}, 0, 0};
      message.Read(static_cast<size_t>(bytes), arrival);
      sink.OnDatagrams(std::move(packet), arrival);
    }
  }

  static void ReadWake(int fd) {
    uint64_t count;
    (void)!read(fd, &count, sizeof(count));
  }

  PacketPool& pool_;
  UniqueFd epoll_;
  std::vector<bool> added_;  // by descriptor
  std::array<epoll_event, kEvents> events_{};
  int ready_ = 0;
  int reading_fd_ = -1;
  int socket_reads_left_ = 0;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Backend>> MakeEpollBackend(PacketPool& pool) {
  UniqueFd epoll(epoll_create1(EPOLL_CLOEXEC));
  if (!epoll) return absl::ErrnoToStatus(errno, "cannot open epoll");
  return std::make_unique<EpollBackend>(pool, std::move(epoll));
}

}  // namespace braid
