#include "slowpath/measure_client.h"

#include <errno.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/clock.h"
#include "slowpath/load_end.h"
#include "slowpath/measure_channel.h"
#include "slowpath/measure_socket.h"

namespace braid {
namespace {

constexpr DurationNs kConnectWithinNs = 3 * kSecondNs;
constexpr DurationNs kAnswerWithinNs = 5 * kSecondNs;
// The other end reports five times a second and echoes each probe.
constexpr DurationNs kSilenceNs = 5 * kSecondNs;
// The other end gives up five seconds behind the end of the load.
constexpr DurationNs kResultWithinNs = 7 * kSecondNs;
constexpr int kGoodbyePollMs = 100;

double Mbps(uint64_t bytes, DurationNs time_ns) {
  return time_ns == 0 ? 0 : static_cast<double>(bytes) * 8e3 / static_cast<double>(time_ns);
}

double Milliseconds(DurationNs time_ns) { return static_cast<double>(time_ns) / 1e6; }

class Client {
 public:
  Client(const MeasureTarget& target, const MeasurePlan& plan, const MeasureHooks& hooks)
      : target_(target), plan_(plan), hooks_(hooks) {}

  absl::StatusOr<MeasureResult> Run();

 private:
  absl::Status Agree();
  absl::Status OpenStreams();
  absl::Status Load();
  absl::Status ReadReports();
  MeasureResult Result(uint64_t sent_up, uint64_t sent_down, uint64_t probes_sent) const;
  MeasureResult FinalResult() const;
  void TellCutShort() const;
  void SayGoodbye();

  absl::StatusOr<MeasureLine> WaitForLine();
  bool stopping() const;
  TimeNs last_heard_ns() const;
  void TellSecond();

  const MeasureTarget& target_;
  const MeasurePlan& plan_;
  const MeasureHooks& hooks_;
  std::optional<MeasureChannel> channel_;
  UniqueFd udp_;
  MeasureAccepted accepted_;
  std::vector<UniqueFd> streams_;
  std::unique_ptr<LoadEnd> end_;
  EndReport theirs_;    // the newest
  TimeNs told_ns_ = 0;  // when it came

  // As of the last second that was told.
  int seconds_told_ = 0;
  EndReport theirs_then_;
  EndReport ours_then_;
  uint64_t probes_sent_then_ = 0;
  uint64_t probes_answered_then_ = 0;
};

bool Client::stopping() const {
  pollfd polled{hooks_.stop_fd, POLLIN, 0};
  return hooks_.stop_fd >= 0 && poll(&polled, 1, 0) > 0;
}

absl::StatusOr<MeasureLine> Client::WaitForLine() {
  const TimeNs until_ns = MonotonicNowNs() + kAnswerWithinNs;
  while (true) {
    auto line = channel_->Next();
    if (!line.ok()) return line.status();
    if (line->has_value()) return **std::move(line);
    const TimeNs now_ns = MonotonicNowNs();
    if (now_ns >= until_ns) {
      return absl::DeadlineExceededError(target_.at.ToString() + " does not answer");
    }
    std::array<pollfd, 2> polled{pollfd{channel_->fd(), POLLIN, 0},
                                 pollfd{hooks_.stop_fd, POLLIN, 0}};
    poll(polled.data(), polled.size(), static_cast<int>((until_ns - now_ns) / kMillisecondNs) + 1);
    if (polled[1].revents != 0) return absl::CancelledError("stopped");
  }
}

absl::Status Client::Agree() {
  auto control =
      ConnectTcp(target_.at, target_.device, MonotonicNowNs() + kConnectWithinNs, hooks_.stop_fd);
  if (!control.ok()) return control.status();
  channel_.emplace(*std::move(control));
  Endpoint local = LocalEndpoint(channel_->fd());
  local.port = 0;
  auto udp = OpenMeasureUdp(local, target_.device);
  if (!udp.ok()) return udp.status();
  udp_ = *std::move(udp);
  const MeasureRequest request{plan_, LocalEndpoint(udp_.get()).port};
  if (absl::Status status = channel_->Send(request); !status.ok()) return status;

  auto line = WaitForLine();
  if (!line.ok()) return line.status();
  if (const auto* refused = std::get_if<MeasureRefused>(&*line)) {
    const std::string what =
        absl::StrCat(target_.at.ToString(), " refuses to measure: ", refused->message);
    return refused->code == "busy" ? absl::ResourceExhaustedError(what)
                                   : absl::FailedPreconditionError(what);
  }
  const auto* accepted = std::get_if<MeasureAccepted>(&*line);
  if (accepted == nullptr) return absl::InvalidArgumentError("the answer is no answer");
  accepted_ = *accepted;
  if (!target_.public_key.empty() && accepted_.public_key != target_.public_key) {
    return absl::FailedPreconditionError(
        absl::StrCat("at ", target_.at.ToString(), " answers another machine than the peer"));
  }
  Endpoint to = target_.at;
  to.port = accepted_.udp_port;
  return ConnectMeasureUdp(udp_.get(), to);
}

absl::Status Client::OpenStreams() {
  const TimeNs until_ns = MonotonicNowNs() + kConnectWithinNs;
  for (int index = 0; index < plan_.streams(); ++index) {
    auto fd = ConnectTcp(target_.at, target_.device, until_ns, hooks_.stop_fd);
    if (!fd.ok()) return fd.status();
    const std::string hello = RenderMeasureLine(MeasureStream{accepted_.token, index});
    if (send(fd->get(), hello.data(), hello.size(), MSG_NOSIGNAL) !=
        static_cast<ssize_t>(hello.size())) {
      return absl::ErrnoToStatus(errno, "cannot send to " + target_.at.ToString());
    }
    streams_.push_back(*std::move(fd));
  }
  const auto line = WaitForLine();
  if (!line.ok()) return line.status();
  if (!std::holds_alternative<MeasureGo>(*line)) {
    return absl::InvalidArgumentError("the other end does not say when to begin");
  }
  return absl::OkStatus();
}

// Takes all that has come.
absl::Status Client::ReadReports() {
  while (true) {
    const auto line = channel_->Next();
    if (!line.ok()) return line.status();
    if (!line->has_value()) return absl::OkStatus();
    const auto* report = std::get_if<EndReport>(&**line);
    if (report == nullptr || theirs_.is_last) {
      return absl::InvalidArgumentError("the other end says what nobody asked for");
    }
    theirs_ = *report;
    told_ns_ = MonotonicNowNs();
  }
}

TimeNs Client::last_heard_ns() const { return std::max(told_ns_, end_->last_rx_ns()); }

absl::Status Client::Load() {
  end_ = std::make_unique<LoadEnd>(plan_, LoadEnd::Side::kClient, std::move(udp_),
                                   std::move(streams_), target_.tcp_threads);
  end_->Begin();
  TimeNs next_second_ns = end_->start_ns() + kSecondNs;
  const TimeNs give_up_ns = end_->start_ns() + plan_.duration_ns() + kResultWithinNs;
  bool told_sent = false;
  while (!(theirs_.is_last && end_->streams_ended())) {
    end_->Step(std::min(next_second_ns, give_up_ns), {channel_->fd(), hooks_.stop_fd});
    if (stopping()) return absl::CancelledError("stopped");
    if (absl::Status status = ReadReports(); !status.ok()) return status;
    const TimeNs now_ns = MonotonicNowNs();
    if (now_ns >= last_heard_ns() + kSilenceNs) {
      return absl::DeadlineExceededError(
          absl::StrCat("nothing was heard of the other end for ", kSilenceNs / kSecondNs, " s"));
    }
    if (now_ns >= give_up_ns) {
      return absl::DeadlineExceededError("the other end gives no result");
    }
    if (end_->sends_no_more() && !told_sent) {
      told_sent = true;
      const MeasureSent sent{end_->Report().datagrams_sent};
      if (absl::Status status = channel_->Send(sent); !status.ok()) return status;
    }
    if (now_ns >= next_second_ns) {
      if (seconds_told_ < plan_.seconds) TellSecond();
      next_second_ns += kSecondNs;
    }
  }
  return absl::OkStatus();
}

void Client::TellSecond() {
  ++seconds_told_;
  const EndReport ours = end_->Report();
  const LatencyHistogram latency = end_->datagrams().TakeRecentLatency();
  const uint64_t probes_sent = end_->datagrams().probes_sent();
  const uint64_t probes_answered = end_->datagrams().probes_answered();
  if (hooks_.on_second) {
    const auto payload = [this](const EndReport& now, const EndReport& then) {
      return now.tcp_rx_bytes - then.tcp_rx_bytes +
             (now.datagrams_received - then.datagrams_received) * plan_.datagram_bytes;
    };
    // What was late for one second may have come in the next.
    const auto grown = [](uint64_t now, uint64_t then) {
      return static_cast<double>(now > then ? now - then : 0);
    };
    const double lost = grown(theirs_.datagrams_lost, theirs_then_.datagrams_lost) +
                        grown(ours.datagrams_lost, ours_then_.datagrams_lost);
    const double received = grown(theirs_.datagrams_received, theirs_then_.datagrams_received) +
                            grown(ours.datagrams_received, ours_then_.datagrams_received);
    const double probes = static_cast<double>(probes_sent - probes_sent_then_);
    const double answered = static_cast<double>(probes_answered - probes_answered_then_);
    MeasureProgress progress;
    progress.second = seconds_told_;
    progress.up_mbps =
        Mbps(payload(theirs_, theirs_then_), theirs_.elapsed_ns - theirs_then_.elapsed_ns);
    progress.down_mbps = Mbps(payload(ours, ours_then_), ours.elapsed_ns - ours_then_.elapsed_ns);
    if (plan_.load == LoadKind::kUdp) {
      progress.loss = lost + received == 0 ? 0 : lost / (lost + received);
    } else {
      progress.loss = probes == 0 ? 0 : std::max(0.0, 1 - answered / probes);
    }
    progress.p50_ms = Milliseconds(latency.Percentile(0.5));
    progress.p99_ms = Milliseconds(latency.Percentile(0.99));
    progress.answers = latency.count();
    hooks_.on_second(progress);
  }
  theirs_then_ = theirs_;
  ours_then_ = ours;
  probes_sent_then_ = probes_sent;
  probes_answered_then_ = probes_answered;
}

DirectionResult ResultOf(const EndReport& receiver, uint64_t sent, const MeasurePlan& plan) {
  DirectionResult result;
  if (plan.load == LoadKind::kTcp) {
    result.mbps = Mbps(receiver.tcp_rx_bytes, receiver.tcp_rx_ns);
  } else if (plan.load == LoadKind::kUdp) {
    const uint64_t bytes = receiver.datagrams_received * plan.datagram_bytes;
    result.mbps = Mbps(bytes, receiver.datagrams_rx_ns);
    result.datagrams_per_s = result.mbps * 1e6 / 8 / static_cast<double>(plan.datagram_bytes);
  }
  result.datagrams_sent = sent;
  result.datagrams_received = receiver.datagrams_received;
  // As the sender counts: the receiver may have been told of more, or of less, than there were.
  result.datagrams_lost = sent - std::min(sent, receiver.datagrams_received);
  result.datagrams_reordered = receiver.datagrams_reordered;
  result.datagrams_doubled = receiver.datagrams_doubled;
  return result;
}

MeasureResult Client::Result(uint64_t sent_up, uint64_t sent_down, uint64_t probes_sent) const {
  MeasureResult result;
  result.plan = plan_;
  result.up = ResultOf(theirs_, sent_up, plan_);
  result.down = ResultOf(end_->Report(), sent_down, plan_);
  const LatencyHistogram& latency = end_->datagrams().latency();
  result.latency.probes_sent = probes_sent;
  result.latency.probes_answered = end_->datagrams().probes_answered();
  result.latency.min_ms = Milliseconds(latency.min_ns());
  result.latency.p50_ms = Milliseconds(latency.Percentile(0.5));
  result.latency.p99_ms = Milliseconds(latency.Percentile(0.99));
  result.latency.max_ms = Milliseconds(latency.max_ns());
  return result;
}

MeasureResult Client::FinalResult() const {
  return Result(end_->Report().datagrams_sent, theirs_.datagrams_sent,
                end_->datagrams().probes_sent());
}

// What was under way is not lost: only those count that must have been before others that came.
void Client::TellCutShort() const {
  if (!hooks_.on_cut_short || theirs_.elapsed_ns == 0) return;
  const EndReport ours = end_->Report();
  const DatagramLoad& probes = end_->datagrams();
  MeasureResult result = Result(theirs_.datagrams_received + theirs_.datagrams_lost,
                                ours.datagrams_received + ours.datagrams_lost,
                                probes.probes_answered() + probes.probes_overtaken());
  const double seconds = static_cast<double>(last_heard_ns() - end_->start_ns()) / kSecondNs;
  result.plan.seconds = std::min(plan_.seconds, seconds);
  hooks_.on_cut_short(result);
}

// Returns when the other end is ready for the next measurement.
void Client::SayGoodbye() {
  end_.reset();
  shutdown(channel_->fd(), SHUT_WR);
  const TimeNs until_ns = MonotonicNowNs() + kGoodbyeWithinNs;
  while (channel_->Next().ok() && MonotonicNowNs() < until_ns && !stopping()) {
    pollfd polled{channel_->fd(), POLLIN, 0};
    poll(&polled, 1, kGoodbyePollMs);
  }
}

absl::StatusOr<MeasureResult> Client::Run() {
  for (auto step : {&Client::Agree, &Client::OpenStreams}) {
    if (absl::Status status = (this->*step)(); !status.ok()) return status;
  }
  if (absl::Status status = Load(); !status.ok()) {
    TellCutShort();
    return absl::IsCancelled(status) ? status : absl::AbortedError(status.message());
  }
  MeasureResult result = FinalResult();
  SayGoodbye();
  return result;
}

}  // namespace

absl::StatusOr<MeasureResult> Measure(const MeasureTarget& target, const MeasurePlan& plan,
                                      const MeasureHooks& hooks) {
  return Client(target, plan, hooks).Run();
}

}  // namespace braid
