// The io_uring backend: multishot reads into provided buffers bring arrivals without a submission
// each; sends and writes are queued as submissions and go to the kernel in one call.
//
// Sends never wait (MSG_DONTWAIT) and TUN takes a write at once, so a flush finds all its
// completions as soon as the submission returns.
#include <errno.h>
#include <liburing.h>
#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <vector>

#include "absl/status/status.h"
#include "base/limits.h"
#include "io/backend.h"
#include "io/datagram_message.h"
#include "io/unique_fd.h"

#ifndef IORING_SETUP_DEFER_TASKRUN
#define IORING_SETUP_DEFER_TASKRUN (1U << 13)
#endif

namespace braid {
namespace {

constexpr uint8_t kOpcodeReadMultishot = 49;  // IORING_OP_READ_MULTISHOT, Linux 6.7
constexpr unsigned kSubmissionEntries = 1024;
constexpr unsigned kCompletionEntries = 4096;
constexpr int kMaxFiles = 1024;          // of one worker
constexpr int kTunReadsOutstanding = 4;  // where the kernel has no multishot read
static_assert(Backend::kMaxSends + Backend::kMaxWrites < kSubmissionEntries);

absl::Status UringError(int result, const char* what) {
  return absl::ErrnoToStatus(-result, std::string("io_uring: ") + what);
}

// Buffers that the kernel picks from by itself (IORING_REGISTER_PBUF_RING). Each is a Packet; the
// kernel writes at a fixed offset inside it. The registration ends with the ring.
class BufferGroup {
 public:
  absl::Status Register(io_uring* ring, uint16_t group, unsigned buffers, size_t start,
                        size_t bytes) {
    group_ = group;
    start_ = start;
    bytes_ = bytes;
    lent_.resize(buffers);
    for (unsigned id = 0; id < buffers; ++id) free_ids_.push_back(static_cast<uint16_t>(id));
    memory_bytes_ = buffers * sizeof(io_uring_buf);
    memory_ =
        mmap(nullptr, memory_bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory_ == MAP_FAILED) return absl::ErrnoToStatus(errno, "io_uring: no memory");
    entries_ = static_cast<io_uring_buf_ring*>(memory_);
    io_uring_buf_reg registration{};
    registration.ring_addr = reinterpret_cast<uint64_t>(memory_);
    registration.ring_entries = buffers;
    registration.bgid = group;
    const int result = io_uring_register_buf_ring(ring, &registration, 0);
    if (result < 0) return UringError(result, "the kernel refuses provided buffer rings");
    io_uring_buf_ring_init(entries_);
    return absl::OkStatus();
  }

  ~BufferGroup() {
    if (memory_ != MAP_FAILED) munmap(memory_, memory_bytes_);
  }

  // Lends the kernel every buffer that the pool can spare.
  void Refill(PacketPool& pool) {
    int added = 0;
    while (!free_ids_.empty()) {
      PacketPtr packet = pool.Take();
      if (packet == nullptr) break;
      const uint16_t id = free_ids_.back();
      free_ids_.pop_back();
      io_uring_buf_ring_add(entries_, packet->buffer + start_, static_cast<unsigned>(bytes_), id,
                            io_uring_buf_ring_mask(static_cast<unsigned>(lent_.size())), added++);
      lent_[id] = std::move(packet);
    }
    if (added != 0) io_uring_buf_ring_advance(entries_, added);
  }

  PacketPtr TakeBack(unsigned id) {
    free_ids_.push_back(static_cast<uint16_t>(id));
    return std::move(lent_[id]);
  }

  uint16_t group() const { return group_; }

 private:
  uint16_t group_ = 0;
  size_t start_ = 0;
  size_t bytes_ = 0;
  void* memory_ = MAP_FAILED;
  size_t memory_bytes_ = 0;
  io_uring_buf_ring* entries_ = nullptr;
  std::vector<PacketPtr> lent_;
  std::vector<uint16_t> free_ids_;
};

// What the kernel puts before a datagram, so that the datagram itself begins behind the headroom,
// 64-byte aligned.
constexpr size_t kBeforeDatagram =
    sizeof(io_uring_recvmsg_out) + sizeof(sockaddr_in6) + kReceiveControlBytes;
static_assert(kBeforeDatagram <= kPacketHeadroomBytes);
constexpr size_t kDatagramStart = kPacketHeadroomBytes - kBeforeDatagram;

class UringBackend final : public Backend {
 public:
  explicit UringBackend(PacketPool& pool) : pool_(pool) {
    sources_.reserve(kMaxFiles);
    fixed_index_.resize(kMaxDescriptors, -1);
    free_slots_.reserve(kMaxFiles);
    for (int slot = kMaxFiles; slot-- > 0;) free_slots_.push_back(static_cast<int16_t>(slot));
    receive_message_.msg_namelen = sizeof(sockaddr_in6);
    receive_message_.msg_controllen = kReceiveControlBytes;
  }

  ~UringBackend() override {
    if (!ring_ready_) return;
    // Closing the ring would cancel its reads and let go of its files at some later time; the
    // buffers go away now, and who waits for this end may bind the same port at once.
    io_uring_sync_cancel_reg everything{};
    everything.flags = IORING_ASYNC_CANCEL_ALL | IORING_ASYNC_CANCEL_ANY;
    everything.timeout = {-1, -1};
    io_uring_register_sync_cancel(&ring_, &everything);
    __kernel_timespec at_once{0, 0};
    io_uring_cqe* first = nullptr;
    io_uring_submit_and_wait_timeout(&ring_, &first, 1, &at_once, nullptr);
    io_uring_unregister_files(&ring_);
    io_uring_queue_exit(&ring_);
  }

  absl::Status Open() {
    io_uring_params parameters{};
    parameters.flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN |
                       IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP;
    parameters.cq_entries = kCompletionEntries;
    int result = io_uring_queue_init_params(kSubmissionEntries, &ring_, &parameters);
    if (result < 0) return UringError(result, "the kernel refuses it");
    ring_ready_ = true;
    result = io_uring_register_files_sparse(&ring_, kMaxFiles);
    if (result < 0) return UringError(result, "the kernel refuses registered files");
    if (absl::Status status = datagrams_.Register(&ring_, 0, kReceiveBuffers, kDatagramStart,
                                                  kBeforeDatagram + kPacketDataBytes);
        !status.ok()) {
      return status;
    }
    if (absl::Status status =
            tun_packets_.Register(&ring_, 1, kTunReadBatch, kPacketHeadroomBytes, kPacketDataBytes);
        !status.ok()) {
      return status;
    }
    tun_multishot_ = Knows(kOpcodeReadMultishot);
    return absl::OkStatus();
  }

  std::string_view name() const override { return "io_uring"; }

  absl::Status AddTun(int fd) override {
    const int reads = tun_multishot_ ? 1 : kTunReadsOutstanding;
    for (int i = 0; i < reads; ++i) {
      if (absl::Status status = Add(fd, Source::kTun, 0); !status.ok()) return status;
    }
    return absl::OkStatus();
  }
  absl::Status AddSocket(int fd, uint16_t socket_id) override {
    return Add(fd, Source::kSocket, socket_id);
  }
  absl::Status AddWake(int fd) override { return Add(fd, Source::kWake, 0); }

  // A multishot read that was cancelled still completes, and others of it may be on their way: its
  // place among the sources, by which they are known, and its registered file are free only then.
  void RemoveSocket(int fd) override {
    if (FixedIndex(fd) < 0) return;
    fixed_index_[fd] = -1;
    for (size_t i = 0; i < sources_.size(); ++i) {
      ArmedSource& source = sources_[i];
      if (source.fd != fd || source.state != State::kUsed) continue;
      source.state = State::kClosing;
      if (!source.armed) {
        Release(source);
        continue;
      }
      io_uring_sqe* sqe = NextSubmission();
      io_uring_prep_cancel64(sqe, Tag(source.kind, i), 0);
      sqe->user_data = Tag(Source::kCancel, i);
    }
  }

  void Poll(DurationNs timeout_ns, Sink& sink) override {
    datagrams_.Refill(pool_);
    tun_packets_.Refill(pool_);
    for (size_t i = 0; i < sources_.size(); ++i) {
      if (!sources_[i].armed && sources_[i].state == State::kUsed) Arm(i);
    }
    if (backlog_size_ == 0) {
      __kernel_timespec timeout{static_cast<int64_t>(timeout_ns / kSecondNs),
                                static_cast<int64_t>(timeout_ns % kSecondNs)};
      io_uring_cqe* first = nullptr;
      io_uring_submit_and_wait_timeout(&ring_, &first, 1, &timeout, nullptr);
      CollectCompletions();
    }
    // The sink may flush, and a flush may find further arrivals: they wait for the next batch.
    const size_t batch = backlog_size_;
    std::swap(backlog_, dispatching_);
    backlog_size_ = 0;
    for (size_t i = 0; i < batch; ++i) Dispatch(dispatching_[i], sink);
  }

  void Send(SendRequest& request) override {
    if (FixedIndex(request.fd) < 0) {
      request.error = EBADF;
      return;
    }
    if (request.segmentation_refused) return SendUnsegmented(request);
    SendMessage& message = messages_[sends_];
    message.Fill(request, request.payload, IsSegmented(request));
    io_uring_sqe* sqe = NextSubmission();
    io_uring_prep_sendmsg(sqe, FixedIndex(request.fd), &message.header,
                          MSG_DONTWAIT | MSG_NOSIGNAL);
    Queue(sqe, Tag(Source::kSend, sends_));
    send_requests_[sends_++] = &request;
  }

  void Write(WriteRequest& request) override {
    if (FixedIndex(request.fd) < 0) {
      request.error = EBADF;
      return;
    }
    io_uring_sqe* sqe = NextSubmission();
    io_uring_prep_writev(sqe, FixedIndex(request.fd), request.parts.data(),
                         static_cast<unsigned>(request.parts.size()), 0);
    sqe->rw_flags = RWF_NOWAIT;
    Queue(sqe, Tag(Source::kWrite, writes_));
    write_requests_[writes_++] = &request;
  }

  void Flush() override {
    if (in_flight_ == 0) return;
    io_uring_submit(&ring_);
    CollectCompletions();
    while (in_flight_ != 0) {  // not seen to happen; but the buffers are not ours before
      io_uring_submit_and_wait(&ring_, 1);
      CollectCompletions();
    }
    sends_ = 0;
    writes_ = 0;
  }

 private:
  enum class Source : uint8_t { kTun, kSocket, kWake, kSend, kWrite, kCancel };
  enum class State : uint8_t { kFree, kUsed, kClosing };

  struct ArmedSource {
    Source kind;
    State state;
    bool armed;
    uint16_t socket_id;
    int16_t slot;  // of the registered file
    int fd;
  };

  struct Completion {
    uint64_t tag;
    int result;
    uint32_t flags;
  };

  static uint64_t Tag(Source source, size_t index) {
    return static_cast<uint64_t>(source) << 32 | index;
  }

  bool Knows(uint8_t opcode) {
    io_uring_probe* probe = io_uring_get_probe_ring(&ring_);
    const bool known = probe != nullptr && opcode <= probe->last_op &&
                       (probe->ops[opcode].flags & IO_URING_OP_SUPPORTED) != 0;
    io_uring_free_probe(probe);
    return known;
  }

  absl::Status Add(int fd, Source kind, uint16_t socket_id) {
    const auto place =
        std::find_if(sources_.begin(), sources_.end(),
                     [](const ArmedSource& source) { return source.state == State::kFree; });
    if (fd >= kMaxDescriptors || free_slots_.empty() ||
        (place == sources_.end() && sources_.size() == kMaxFiles)) {
      return absl::ResourceExhaustedError("io_uring: too many descriptors for one worker");
    }
    if (fixed_index_[fd] < 0) {
      const int16_t slot = free_slots_.back();
      const int result =
          io_uring_register_files_update(&ring_, static_cast<unsigned>(slot), &fd, 1);
      if (result < 0) return UringError(result, "the kernel refuses to register a descriptor");
      fixed_index_[fd] = slot;
      free_slots_.pop_back();
    }
    const ArmedSource added{kind, State::kUsed, false, socket_id, fixed_index_[fd], fd};
    if (place == sources_.end()) {
      sources_.push_back(added);
    } else {
      *place = added;
    }
    return absl::OkStatus();
  }

  // Of a socket, which has one source.
  void Release(ArmedSource& source) {
    source.state = State::kFree;
    int none = -1;
    io_uring_register_files_update(&ring_, static_cast<unsigned>(source.slot), &none, 1);
    free_slots_.push_back(source.slot);
  }

  int FixedIndex(int fd) const { return fd < 0 || fd >= kMaxDescriptors ? -1 : fixed_index_[fd]; }

  // With many sockets the reads to be armed may have filled the queue; a submission empties it.
  io_uring_sqe* NextSubmission() {
    io_uring_sqe* sqe = io_uring_get_sqe(&ring_);
    if (sqe != nullptr) return sqe;
    io_uring_submit(&ring_);
    return io_uring_get_sqe(&ring_);
  }

  void Queue(io_uring_sqe* sqe, uint64_t tag) {
    sqe->flags |= IOSQE_FIXED_FILE;
    sqe->user_data = tag;
    ++in_flight_;
  }

  void Arm(size_t index) {
    ArmedSource& source = sources_[index];
    io_uring_sqe* sqe = NextSubmission();
    const int file = FixedIndex(source.fd);
    switch (source.kind) {
      case Source::kTun:
        io_uring_prep_read(sqe, file, nullptr, tun_multishot_ ? 0 : kPacketDataBytes, 0);
        if (tun_multishot_) sqe->opcode = kOpcodeReadMultishot;
        sqe->flags |= IOSQE_BUFFER_SELECT;
        sqe->buf_group = tun_packets_.group();
        break;
      case Source::kSocket:
        io_uring_prep_recvmsg_multishot(sqe, file, &receive_message_, 0);
        sqe->flags |= IOSQE_BUFFER_SELECT;
        sqe->buf_group = datagrams_.group();
        break;
      default:
        io_uring_prep_read(sqe, file, &wake_count_, sizeof(wake_count_), 0);
        break;
    }
    sqe->flags |= IOSQE_FIXED_FILE;
    sqe->user_data = Tag(source.kind, index);
    source.armed = true;
  }

  // Settles sends and writes; arrivals go to the backlog.
  void CollectCompletions() {
    unsigned head;
    unsigned seen = 0;
    io_uring_cqe* cqe;
    io_uring_for_each_cqe(&ring_, head, cqe) {
      const uint64_t index = cqe->user_data & 0xffffffff;
      switch (static_cast<Source>(cqe->user_data >> 32)) {
        case Source::kSend:
          FinishSend(*send_requests_[index], cqe->res < 0 ? -cqe->res : 0);
          --in_flight_;
          break;
        case Source::kWrite:
          write_requests_[index]->error = cqe->res < 0 ? -cqe->res : 0;
          --in_flight_;
          break;
        case Source::kCancel:
          break;
        default:
          backlog_[backlog_size_++] = {cqe->user_data, cqe->res, cqe->flags};
          break;
      }
      ++seen;
    }
    io_uring_cq_advance(&ring_, seen);
  }

  void Dispatch(const Completion& completion, Sink& sink) {
    ArmedSource& source = sources_[completion.tag & 0xffffffff];
    const bool is_closing = source.state == State::kClosing;
    if ((completion.flags & IORING_CQE_F_MORE) == 0) {
      source.armed = false;
      if (is_closing) Release(source);
    }
    if ((completion.flags & IORING_CQE_F_BUFFER) == 0) return;  // a wake, or an error: armed again
    const unsigned buffer = completion.flags >> IORING_CQE_BUFFER_SHIFT;
    if (is_closing) {
      datagrams_.TakeBack(buffer);
    } else if (source.kind == Source::kTun) {
      PacketPtr packet = tun_packets_.TakeBack(buffer);
      if (completion.result <= 0) return;
      packet->length = static_cast<uint32_t>(completion.result);
      sink.OnTunPacket(std::move(packet));
    } else {
      PacketPtr packet = datagrams_.TakeBack(buffer);
      if (completion.result > 0) DispatchDatagrams(source, completion.result, packet, sink);
    }
  }

  void DispatchDatagrams(const ArmedSource& source, int result, PacketPtr& packet, Sink& sink) {
    uint8_t* start = packet->buffer + kDatagramStart;
    io_uring_recvmsg_out* out = io_uring_recvmsg_validate(start, result, &receive_message_);
    if (out == nullptr) return;
    packet->length = io_uring_recvmsg_payload_length(out, result, &receive_message_);
    sockaddr_storage address;
    std::memcpy(&address, io_uring_recvmsg_name(out), sizeof(sockaddr_in6));
    Arrival arrival{source.socket_id, 0, Endpoint::From(address), {}, 0, 0};
    msghdr control{};
    control.msg_control = start + sizeof(*out) + sizeof(sockaddr_in6);
    control.msg_controllen = out->controllen;
    ReadControl(control, packet->length, arrival);
    sink.OnDatagrams(std::move(packet), arrival);
  }

  PacketPool& pool_;
  io_uring ring_{};
  bool ring_ready_ = false;
  bool tun_multishot_ = false;
  BufferGroup datagrams_;
  BufferGroup tun_packets_;
  std::vector<ArmedSource> sources_;
  std::vector<int16_t> fixed_index_;  // by descriptor
  std::vector<int16_t> free_slots_;   // of the registered files
  msghdr receive_message_{};
  uint64_t wake_count_ = 0;

  std::array<SendMessage, kMaxSends> messages_;
  std::array<SendRequest*, kMaxSends> send_requests_{};
  std::array<WriteRequest*, kMaxWrites> write_requests_{};
  size_t sends_ = 0;
  size_t writes_ = 0;
  size_t in_flight_ = 0;

  // Holds all that can arrive before the next Poll arms and refills: each provided buffer once, and
  // the end of each read. So a flush always gets past arrivals to its own completions.
  static constexpr size_t kBacklog = kReceiveBuffers + kTunReadBatch + kMaxFiles;
  static_assert(kBacklog < kCompletionEntries);
  std::vector<Completion> backlog_ = std::vector<Completion>(kBacklog);
  std::vector<Completion> dispatching_ = std::vector<Completion>(kBacklog);
  size_t backlog_size_ = 0;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Backend>> MakeUringBackend(PacketPool& pool) {
  auto backend = std::make_unique<UringBackend>(pool);
  if (absl::Status status = backend->Open(); !status.ok()) return status;
  return backend;
}

}  // namespace braid
