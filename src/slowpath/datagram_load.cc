#include "slowpath/datagram_load.h"

#include <errno.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

namespace braid {
namespace {

constexpr size_t kBatchDatagrams = 64;
constexpr int kBatchesPerStep = 8;  // in each direction, before the other has its turn
constexpr size_t kProbeBytes = 64;
// More than this is not made up for after a pause: a burst would measure a queue, not the way.
constexpr DurationNs kMaxBacklogNs = 20 * kMillisecondNs;
// Datagrams at a rate leave in small groups, each for one system call.
constexpr DurationNs kMinPauseNs = 100 * kMicrosecondNs;

}  // namespace

// Messages with a header each; the bytes behind it are the same for all.
struct DatagramLoad::Batch {
  using Headers = std::array<std::array<uint8_t, kMeasureDatagramBytes>, kBatchDatagrams>;
  Headers headers{};
  std::array<uint8_t, kMaxMeasureDatagramBytes> rest{};
  std::array<std::array<iovec, 2>, kBatchDatagrams> parts{};
  std::array<mmsghdr, kBatchDatagrams> messages{};

  void Prepare(size_t datagram_bytes) {
    for (size_t i = 0; i < kBatchDatagrams; ++i) {
      parts[i] = {iovec{headers[i].data(), headers[i].size()},
                  iovec{rest.data(), datagram_bytes - kMeasureDatagramBytes}};
      messages[i] = {};
      messages[i].msg_hdr.msg_iov = parts[i].data();
      messages[i].msg_hdr.msg_iovlen = parts[i].size();
    }
  }
};

DatagramLoad::DatagramLoad(int fd, const DatagramLoadOptions& options)
    : fd_(fd),
      options_(options),
      datagrams_per_ns_(options.rate_mbps * 1e6 / 8 / static_cast<double>(options.datagram_bytes) /
                        static_cast<double>(kSecondNs)),
      batch_(std::make_unique<Batch>()) {}

DatagramLoad::~DatagramLoad() = default;

void DatagramLoad::Start(TimeNs start_ns, TimeNs end_ns) {
  start_ns_ = next_probe_ns_ = start_ns;
  end_ns_ = end_ns;
}

TimeNs DatagramLoad::Step() {
  Receive();
  wants_room_ = false;
  const TimeNs now_ns = MonotonicNowNs();
  if (now_ns >= end_ns_) return UINT64_MAX;
  // Probes first, so that they do not wait behind a batch of the load.
  const TimeNs probe_ns = SendProbe(now_ns);
  return std::min(probe_ns, SendLoad(now_ns));
}

void DatagramLoad::Receive() {
  for (int i = 0; i < kBatchesPerStep; ++i) {
    if (!ReceiveBatch()) return;
  }
}

// False when nothing more waits.
bool DatagramLoad::ReceiveBatch() {
  batch_->Prepare(kMaxMeasureDatagramBytes);
  const int got = recvmmsg(fd_, batch_->messages.data(), kBatchDatagrams, MSG_DONTWAIT, nullptr);
  if (got <= 0) return got < 0 && errno != EAGAIN;  // an error tells of an earlier send
  const TimeNs now_ns = MonotonicNowNs();
  for (size_t i = 0; i < static_cast<size_t>(got); ++i) {
    const mmsghdr& message = batch_->messages[i];
    if ((message.msg_hdr.msg_flags & MSG_TRUNC) != 0) continue;
    if (message.msg_len < kMeasureDatagramBytes) continue;
    const auto datagram = ReadMeasureDatagram(batch_->headers[i]);
    if (datagram) OnDatagram(*datagram, message.msg_len, now_ns);
  }
  return got == kBatchDatagrams;
}

void DatagramLoad::OnDatagram(const MeasureDatagram& datagram, size_t bytes, TimeNs now_ns) {
  switch (datagram.kind) {
    case MeasureDatagram::Kind::kLoad:
      meter_.Add(datagram.sequence);
      last_rx_ns_ = now_ns;
      break;
    case MeasureDatagram::Kind::kProbe:
      SendOne({MeasureDatagram::Kind::kEcho, datagram.sequence, datagram.sent_ns}, bytes);
      break;
    case MeasureDatagram::Kind::kEcho: {
      if (datagram.sequence >= probes_sent_ || datagram.sent_ns > now_ns) break;
      const uint64_t answered = echoes_.received();
      echoes_.Add(datagram.sequence);
      if (echoes_.received() == answered) break;  // an echo for the second time
      last_echo_ns_ = now_ns;
      latency_.Add(now_ns - datagram.sent_ns);
      recent_latency_.Add(now_ns - datagram.sent_ns);
      break;
    }
  }
}

TimeNs DatagramLoad::SendLoad(TimeNs now_ns) {
  if (!options_.sends) return UINT64_MAX;
  if (options_.rate_mbps == 0) {
    for (int i = 0; i < kBatchesPerStep && !wants_room_; ++i) SendBatch(kBatchDatagrams, now_ns);
    return wants_room_ ? UINT64_MAX : now_ns;
  }
  const double sent = static_cast<double>(sent_);
  double due = static_cast<double>(now_ns - start_ns_) * datagrams_per_ns_ - skipped_ - sent;
  const double most = std::max(kMaxBacklogNs * datagrams_per_ns_, 1.0);
  if (due > most) {
    skipped_ += due - most;
    due = most;
  }
  auto left = static_cast<size_t>(due);
  for (int i = 0; i < kBatchesPerStep && left > 0 && !wants_room_; ++i) {
    left -= SendBatch(std::min(left, kBatchDatagrams), now_ns);
  }
  if (wants_room_) return UINT64_MAX;
  if (left > 0) return now_ns;
  const double missing = 1 - (due - std::floor(due));
  const auto pause_ns = static_cast<DurationNs>(missing / datagrams_per_ns_);
  return now_ns + std::max(pause_ns, kMinPauseNs);
}

size_t DatagramLoad::SendBatch(size_t count, TimeNs now_ns) {
  batch_->Prepare(options_.datagram_bytes);
  for (size_t i = 0; i < count; ++i) {
    WriteMeasureDatagram({MeasureDatagram::Kind::kLoad, sent_ + i, now_ns},
                         batch_->headers[i].data());
  }
  const int sent = sendmmsg(fd_, batch_->messages.data(), static_cast<unsigned>(count),
                            MSG_DONTWAIT | MSG_NOSIGNAL);
  if (sent < 0) {
    wants_room_ = errno == EAGAIN || errno == ENOBUFS;
    // A filter of this machine has dropped it: that is a loss as any other. Other errors tell of
    // an earlier datagram, or will go away.
    if (errno != EPERM) return 0;
    ++sent_;
    return 1;
  }
  sent_ += static_cast<uint64_t>(sent);
  wants_room_ = static_cast<size_t>(sent) < count;
  return static_cast<size_t>(sent);
}

TimeNs DatagramLoad::SendProbe(TimeNs now_ns) {
  if (options_.probe_interval_ns == 0) return UINT64_MAX;
  if (now_ns >= next_probe_ns_) {
    SendOne({MeasureDatagram::Kind::kProbe, probes_sent_++, MonotonicNowNs()}, kProbeBytes);
    next_probe_ns_ = std::max(next_probe_ns_ + options_.probe_interval_ns, now_ns);
  }
  return next_probe_ns_;
}

void DatagramLoad::SendOne(const MeasureDatagram& datagram, size_t bytes) {
  std::array<uint8_t, kMaxMeasureDatagramBytes> buffer;
  WriteMeasureDatagram(datagram, buffer.data());
  std::fill(buffer.begin() + kMeasureDatagramBytes, buffer.begin() + static_cast<ptrdiff_t>(bytes),
            uint8_t{0});
  send(fd_, buffer.data(), bytes, MSG_DONTWAIT | MSG_NOSIGNAL);
}

LatencyHistogram DatagramLoad::TakeRecentLatency() {
  return std::exchange(recent_latency_, LatencyHistogram());
}

}  // namespace braid
