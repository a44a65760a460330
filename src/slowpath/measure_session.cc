#include "slowpath/measure_session.h"

#include <poll.h>
#include <pthread.h>
#include <sodium.h>
#include <spdlog/spdlog.h>
#include <sys/eventfd.h>

#include <algorithm>
#include <array>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "slowpath/load_end.h"
#include "slowpath/measure_socket.h"

namespace braid {
namespace {

constexpr DurationNs kGraceNs = 5 * kSecondNs;  // for what is under way at the end
constexpr DurationNs kReportEveryNs = 200 * kMillisecondNs;
constexpr size_t kTokenBytes = 16;

std::string RandomToken() {
  std::array<unsigned char, kTokenBytes> bytes;
  randombytes_buf(bytes.data(), bytes.size());
  std::string hex(2 * kTokenBytes + 1, '\0');
  sodium_bin2hex(hex.data(), hex.size(), bytes.data(), bytes.size());
  hex.pop_back();
  return hex;
}

// Until one of them is readable, or has ended, or the time has come.
void WaitFor(int a, int b, TimeNs until_ns) {
  const TimeNs now_ns = MonotonicNowNs();
  if (now_ns >= until_ns) return;
  std::array<pollfd, 2> polled{pollfd{a, POLLIN, 0}, pollfd{b, POLLIN, 0}};
  poll(polled.data(), polled.size(), static_cast<int>((until_ns - now_ns) / kMillisecondNs) + 1);
}

}  // namespace

DurationNs MeasureSession::LongestNs(const MeasureSessionOptions& options) {
  return options.limits.streams_within_ns + options.request.plan.duration_ns() + kGraceNs +
         kGoodbyeWithinNs;
}

MeasureSession::MeasureSession(MeasureSessionOptions options, UniqueFd control)
    : options_(std::move(options)),
      token_(RandomToken()),
      deadline_ns_(MonotonicNowNs() + LongestNs(options_)),
      channel_(std::move(control)),
      wake_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {}

MeasureSession::~MeasureSession() {
  stopping_.store(true, std::memory_order_relaxed);
  eventfd_write(wake_.get(), 1);
  if (thread_.joinable()) thread_.join();
}

absl::Status MeasureSession::Start() {
  if (!wake_) return absl::ResourceExhaustedError("no descriptor is left for a measurement");
  try {
    thread_ = std::thread(&MeasureSession::Run, this);
  } catch (const std::system_error& error) {
    return absl::ResourceExhaustedError(
        absl::StrCat("no thread for a measurement: ", error.what()));
  }
  return absl::OkStatus();
}

int MeasureSession::seconds_left() const {
  const TimeNs now_ns = MonotonicNowNs();
  return now_ns >= deadline_ns_ ? 0 : static_cast<int>((deadline_ns_ - now_ns) / kSecondNs) + 1;
}

bool MeasureSession::AddStream(const MeasureStream& stream, const IpAddress& from, UniqueFd fd) {
  if (stream.token != token_ || from != options_.remote.address) return false;
  if (stream.index >= options_.request.plan.streams()) return false;
  const std::lock_guard lock(mutex_);
  const bool is_new = streams_.emplace(stream.index, std::move(fd)).second;
  if (is_new) eventfd_write(wake_.get(), 1);
  return is_new;
}

void MeasureSession::Run() {
  pthread_setname_np(pthread_self(), "braid-measure");
  absl::Status status;
  try {
    status = Measure();
  } catch (const std::exception& error) {
    status = absl::InternalError(error.what());
  }
  if (!status.ok() && !stopping()) {
    spdlog::debug("a measurement by {} has ended early: {}", options_.remote.address.ToString(),
                  std::string(status.message()));
  }
  if (options_.on_end) options_.on_end();
}

absl::Status MeasureSession::Measure() {
  const MeasurePlan& plan = options_.request.plan;
  auto udp = OpenDatagrams();
  if (!udp.ok()) {
    (void)!channel_.Send(MeasureRefused{"unavailable", std::string(udp.status().message())}).ok();
    return udp.status();
  }
  const MeasureAccepted accepted{token_, LocalEndpoint(udp->get()).port, options_.public_key};
  if (absl::Status status = channel_.Send(accepted); !status.ok()) return status;
  auto streams = CollectStreams();
  if (!streams.ok()) return streams.status();

  LoadEnd end(plan, LoadEnd::Side::kServer, *std::move(udp), *std::move(streams),
              options_.tcp_threads);
  if (absl::Status status = channel_.Send(MeasureGo()); !status.ok()) return status;
  end.Begin();
  std::optional<uint64_t> sent;
  TimeNs next_report_ns = end.start_ns() + kReportEveryNs;
  TimeNs settled_ns = UINT64_MAX;
  const TimeNs give_up_ns = end.start_ns() + plan.duration_ns() + kGraceNs;
  while (MonotonicNowNs() < std::min(settled_ns, give_up_ns)) {
    end.Step(std::min({next_report_ns, settled_ns, give_up_ns}), {channel_.fd(), wake_.get()});
    if (stopping()) return absl::CancelledError("the daemon stops");
    if (absl::Status status = ReadLines(sent); !status.ok()) return status;
    const TimeNs now_ns = MonotonicNowNs();
    if (now_ns >= next_report_ns) {
      if (absl::Status status = channel_.Send(end.Report(sent)); !status.ok()) return status;
      next_report_ns = now_ns + kReportEveryNs;
    }
    const bool all_sent = sent && end.sends_no_more() && end.streams_ended();
    if (all_sent && settled_ns == UINT64_MAX) {
      settled_ns = now_ns + options_.limits.settle_ns;
    }
  }
  EndReport result = end.Report(sent);
  result.is_last = true;
  if (absl::Status status = channel_.Send(result); !status.ok()) return status;
  // What this end has sent over TCP may still be on its way, and goes when the streams are closed.
  WaitForGoodbye();
  return absl::OkStatus();
}

// One port for everything, so that a firewall needs one rule for each protocol.
absl::StatusOr<UniqueFd> MeasureSession::OpenDatagrams() {
  auto udp = OpenMeasureUdp(options_.local, options_.device);
  if (!udp.ok()) return udp.status();
  Endpoint to = options_.remote;
  to.port = options_.request.udp_port;
  if (absl::Status status = ConnectMeasureUdp(udp->get(), to); !status.ok()) return status;
  return udp;
}

absl::StatusOr<std::vector<UniqueFd>> MeasureSession::CollectStreams() {
  const auto wanted = static_cast<size_t>(options_.request.plan.streams());
  const TimeNs until_ns = MonotonicNowNs() + options_.limits.streams_within_ns;
  while (MonotonicNowNs() < until_ns) {
    if (stopping()) return absl::CancelledError("the daemon stops");
    {
      const std::lock_guard lock(mutex_);
      uint64_t ignored;
      eventfd_read(wake_.get(), &ignored);  // from now on it only means to stop
      if (streams_.size() == wanted) {
        std::vector<UniqueFd> streams;
        for (auto& [index, fd] : streams_) streams.push_back(std::move(fd));
        return streams;
      }
    }
    WaitFor(channel_.fd(), wake_.get(), until_ns);
    const auto line = channel_.Next();
    if (!line.ok()) return line.status();
    if (line->has_value()) return absl::InvalidArgumentError("it did not wait for the start");
  }
  return absl::DeadlineExceededError("its streams did not come");
}

absl::Status MeasureSession::ReadLines(std::optional<uint64_t>& sent) {
  const auto line = channel_.Next();
  if (!line.ok()) return line.status();
  if (!line->has_value()) return absl::OkStatus();
  const auto* told = std::get_if<MeasureSent>(&**line);
  if (told == nullptr || sent) return absl::InvalidArgumentError("it told what nobody asked for");
  sent = told->datagrams;
  return absl::OkStatus();
}

// The client closes the connection when it has everything.
void MeasureSession::WaitForGoodbye() {
  const TimeNs until_ns = MonotonicNowNs() + kGoodbyeWithinNs;
  while (MonotonicNowNs() < until_ns && !stopping()) {
    WaitFor(channel_.fd(), wake_.get(), until_ns);
    const auto line = channel_.Next();
    if (!line.ok() || line->has_value()) return;
  }
}

}  // namespace braid
