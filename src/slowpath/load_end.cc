#include "slowpath/load_end.h"

#include <poll.h>
#include <time.h>

#include <algorithm>
#include <array>

namespace braid {
namespace {

constexpr DurationNs kProbeIntervalNs = 5 * kMillisecondNs;

DatagramLoadOptions OptionsOf(const MeasurePlan& plan, LoadEnd::Side side) {
  const bool is_client = side == LoadEnd::Side::kClient;
  DatagramLoadOptions options;
  options.sends = plan.load == LoadKind::kUdp && (is_client ? plan.up : plan.down);
  options.datagram_bytes = plan.datagram_bytes;
  options.rate_mbps = plan.rate_mbps;
  options.probe_interval_ns = is_client ? kProbeIntervalNs : 0;
  return options;
}

std::vector<TcpLoad::Stream> Directed(std::vector<UniqueFd> streams, const MeasurePlan& plan,
                                      LoadEnd::Side side) {
  std::vector<TcpLoad::Stream> directed;
  for (size_t i = 0; i < streams.size(); ++i) {
    const bool up = i < static_cast<size_t>(plan.streams_up());
    directed.push_back({std::move(streams[i]), up == (side == LoadEnd::Side::kClient)});
  }
  return directed;
}

}  // namespace

LoadEnd::LoadEnd(const MeasurePlan& plan, Side side, UniqueFd udp, std::vector<UniqueFd> streams,
                 int tcp_threads)
    : plan_(plan), udp_(std::move(udp)), datagrams_(udp_.get(), OptionsOf(plan, side)) {
  if (streams.empty()) return;
  tcp_ = std::make_unique<TcpLoad>(Directed(std::move(streams), plan, side), tcp_threads);
}

void LoadEnd::Begin() {
  start_ns_ = MonotonicNowNs();
  end_ns_ = start_ns_ + plan_.duration_ns();
  datagrams_.Start(start_ns_, end_ns_);
  if (tcp_ != nullptr) tcp_->Start(end_ns_);
}

void LoadEnd::Step(TimeNs until_ns, std::initializer_list<int> also) {
  const TimeNs next_ns = std::min(datagrams_.Step(), until_ns);
  std::array<pollfd, 4> polled{};
  size_t count = 0;
  const int events = POLLIN | (datagrams_.wants_room() ? POLLOUT : 0);
  polled[count++] = {udp_.get(), static_cast<short>(events), 0};
  for (const int fd : also) {
    if (fd >= 0 && count < polled.size()) polled[count++] = {fd, POLLIN, 0};
  }
  const TimeNs now_ns = MonotonicNowNs();
  const DurationNs wait_ns = next_ns > now_ns ? next_ns - now_ns : 0;
  const timespec timeout{static_cast<time_t>(wait_ns / kSecondNs),
                         static_cast<long>(wait_ns % kSecondNs)};
  ppoll(polled.data(), count, &timeout, nullptr);
}

TimeNs LoadEnd::last_rx_ns() const {
  const TimeNs tcp_ns = tcp_ != nullptr ? tcp_->last_rx_ns() : 0;
  return std::max({start_ns_, tcp_ns, datagrams_.last_rx_ns(), datagrams_.last_echo_ns()});
}

EndReport LoadEnd::Report(std::optional<uint64_t> sent) const {
  const auto since_start = [this](TimeNs then_ns) {
    return then_ns > start_ns_ ? then_ns - start_ns_ : 0;
  };
  const SequenceMeter& meter = datagrams_.meter();
  EndReport report;
  report.elapsed_ns = since_start(MonotonicNowNs());
  if (tcp_ != nullptr) {
    report.tcp_rx_bytes = tcp_->rx_bytes();
    report.tcp_rx_ns = since_start(tcp_->last_rx_ns());
  }
  report.datagrams_sent = datagrams_.sent();
  report.datagrams_received = meter.received();
  report.datagrams_lost = meter.Lost(sent.value_or(0));
  report.datagrams_reordered = meter.reordered();
  report.datagrams_doubled = meter.doubled();
  report.datagrams_rx_ns = since_start(datagrams_.last_rx_ns());
  return report;
}

}  // namespace braid
