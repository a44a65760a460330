#include "linkem/emulator.h"

#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <iostream>
#include <utility>

#include "absl/strings/str_format.h"
#include "linkem/report.h"

namespace braid::linkem {
namespace {

// What is due shortly goes at once, with what is due now.
constexpr DurationNs kEarlyNs = 100 * kMicrosecondNs;
// A timer ends a wait a little after its time.
constexpr DurationNs kLeadNs = 20 * kMicrosecondNs;
// For how long the interfaces are not looked at while traffic flows.
constexpr DurationNs kLongestRestNs = kMillisecondNs;
// Between the end of a sleep as long as this, and what it was for, there is another short one.
constexpr DurationNs kLongSleepNs = 2 * kMillisecondNs;
constexpr DurationNs kLastSleepNs = 500 * kMicrosecondNs;
// Less is not worth a timer: then arrivals end the wait.
constexpr DurationNs kLeastRestNs = 10 * kMicrosecondNs;
// While there is always something to do, commands and signals are looked for this often.
constexpr DurationNs kHandleEveryNs = 2 * kMillisecondNs;
// A command line is shorter by far.
constexpr size_t kMaxLineBytes = 4096;

absl::Status Failed(const char* what) {
  return absl::InternalError(absl::StrFormat("%s: %s", what, strerror(errno)));
}

timespec Timespec(DurationNs duration_ns) {
  return {static_cast<time_t>(duration_ns / kSecondNs),
          static_cast<int64_t>(duration_ns % kSecondNs)};
}

absl::Status Watch(int epoll, int fd) {
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.fd = fd;
  if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) != 0) return Failed("epoll_ctl");
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<Emulator>> Emulator::Create(EmulatorOptions options) {
  std::unique_ptr<Emulator> emulator(new Emulator(std::move(options)));
  const absl::Status status = emulator->Open();
  if (!status.ok()) return status;
  return emulator;
}

// The generators of the two directions are as good as independent.
Emulator::Emulator(EmulatorOptions options)
    : options_(std::move(options)),
      to_left_(options_.to_left, options_.seed),
      to_right_(options_.to_right, ~options_.seed) {}

absl::Status Emulator::Open() {
  if (options_.left == options_.right) {
    return absl::InvalidArgumentError(options_.left + ": cannot be both ends of the link");
  }
  // First, so that nothing ends the program between here and Run().
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGTERM);
  sigprocmask(SIG_BLOCK, &signals, nullptr);
  signals_ = UniqueFd(signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK));
  control_ = UniqueFd(epoll_create1(EPOLL_CLOEXEC));
  epoll_ = UniqueFd(epoll_create1(EPOLL_CLOEXEC));
  if (!signals_ || !control_ || !epoll_) return Failed("epoll");
  prctl(PR_SET_TIMERSLACK, 1);

  for (auto [port, name] : {std::pair(&left_, &options_.left), {&right_, &options_.right}}) {
    absl::StatusOr<std::unique_ptr<EthernetPort>> opened = EthernetPort::Open(*name);
    if (!opened.ok()) return opened.status();
    *port = *std::move(opened);
  }
  to_right_.from = to_left_.to = left_.get();
  to_left_.from = to_right_.to = right_.get();

  absl::Status status = Watch(control_.get(), signals_.get());
  // A file cannot be watched, but is read to its end when the loop begins.
  if (status.ok()) input_watched_ = Watch(control_.get(), STDIN_FILENO).ok();
  for (const int fd : {control_.get(), left_->fd(), right_->fd()}) {
    if (status.ok()) status = Watch(epoll_.get(), fd);
  }
  started_ns_ = trace_began_ns_ = MonotonicNowNs();
  return status;
}

absl::Status Emulator::Run() {
  Handle();
  while (!quit_) {
    busy_ = more_ = false;
    RunTrace(MonotonicNowNs());
    for (Direction* direction : {&to_left_, &to_right_}) {
      const absl::Status status = Receive(*direction);
      if (!status.ok()) return status;
    }
    const TimeNs now_ns = MonotonicNowNs();
    for (Direction* direction : {&to_left_, &to_right_}) {
      const absl::Status status = Send(*direction, now_ns);
      if (!status.ok()) return status;
    }
    Rest();
  }
  return absl::OkStatus();
}

absl::Status Emulator::Receive(Direction& direction) {
  const absl::Status status = direction.from->Receive(arrivals_);
  if (!status.ok()) return status;
  for (const EthernetPort::Arrival& arrival : arrivals_) Enter(direction, arrival);
  busy_ |= !arrivals_.empty();
  more_ |= arrivals_.size() == EthernetPort::kReceiveBatch;
  return absl::OkStatus();
}

void Emulator::Enter(Direction& direction, const EthernetPort::Arrival& arrival) {
  if (!cutter_.Begin(arrival.vnet_and_frame, arrival.tag)) {
    ++direction.not_cut;
    return;
  }
  for (FramePiece piece; cutter_.Next(piece);) {
    FramePtr frame = pool_.Take(kVnetHeaderBytes + piece.bytes());
    if (frame == nullptr) {
      ++direction.no_memory;
      continue;
    }
    uint8_t* to = frame->data();
    StoreNative(to, piece.vnet);
    to += kVnetHeaderBytes;
    std::memcpy(to, piece.head.data(), piece.head.size());
    std::memcpy(to + piece.head.size(), piece.body.data(), piece.body.size());
    direction.link.Enter(arrival.at_ns, static_cast<uint32_t>(piece.bytes()), std::move(frame));
  }
}

absl::Status Emulator::Send(Direction& direction, TimeNs now_ns) {
  direction.link.Deliver(now_ns + kEarlyNs, [&](TimeNs, uint32_t, FramePtr&& frame) {
    direction.to->Send(std::move(frame));
    busy_ = true;
  });
  return direction.to->Flush();
}

TimeNs Emulator::NextStepNs() const {
  const Trace& trace = options_.trace;
  if (next_step_ < trace.steps.size()) return trace_began_ns_ + trace.steps[next_step_].after_ns;
  return trace.loop_ns != 0 ? trace_began_ns_ + trace.loop_ns : kNever;
}

// Until something is due, or has arrived. While traffic flows, arrivals are left alone for as long
// as they cannot be due themselves.
void Emulator::Rest() {
  const TimeNs now_ns = MonotonicNowNs();
  TimeNs due_ns = NextStepNs();
  TimeNs arrivals_due_ns = kNever;
  for (const Direction* direction : {&to_left_, &to_right_}) {
    const TimeNs next_ns = direction->link.NextDueNs();
    due_ns = std::min(due_ns, next_ns == kNever ? kNever : next_ns - kLeadNs);
    arrivals_due_ns = std::min(arrivals_due_ns, direction->link.EarliestDueNs(now_ns));
  }
  if (!more_ && (!busy_ || arrivals_due_ns < now_ns + kLeadNs + kLeastRestNs)) {
    Wait(now_ns, due_ns);
    return;
  }
  const TimeNs until_ns = std::min({due_ns, arrivals_due_ns - kLeadNs, now_ns + kLongestRestNs});
  if (until_ns > now_ns && !more_) {
    const timespec until = Timespec(until_ns);
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, nullptr);
  }
  if (now_ns - handled_ns_ > kHandleEveryNs) Handle();
}

// After a long sleep the processor is late by more; so the last bit is slept by itself.
void Emulator::Wait(TimeNs now_ns, TimeNs until_ns) {
  if (until_ns != kNever && until_ns > now_ns + kLongSleepNs) until_ns -= kLastSleepNs;
  const timespec timeout = Timespec(until_ns > now_ns ? until_ns - now_ns : 0);
  std::array<epoll_event, 4> events;
  const int count = epoll_pwait2(epoll_.get(), events.data(), static_cast<int>(events.size()),
                                 until_ns == kNever ? nullptr : &timeout, nullptr);
  for (int i = 0; i < count; ++i) {
    if (events[static_cast<size_t>(i)].data.fd == control_.get()) return Handle();
  }
}

void Emulator::RunTrace(TimeNs now_ns) {
  while (!quit_ && NextStepNs() <= now_ns) {
    if (next_step_ == options_.trace.steps.size()) {
      trace_began_ns_ += options_.trace.loop_ns;
      next_step_ = 0;
    } else {
      Execute(options_.trace.steps[next_step_++].command);
    }
  }
}

// Signals and standard input.
void Emulator::Handle() {
  handled_ns_ = MonotonicNowNs();
  signalfd_siginfo signal;
  if (read(signals_.get(), &signal, sizeof(signal)) > 0) quit_ = true;
  pollfd input{STDIN_FILENO, POLLIN, 0};
  while (input_open_ && !quit_ && poll(&input, 1, 0) > 0) ReadInput();
}

void Emulator::ReadInput() {
  char buffer[kMaxLineBytes];
  const ssize_t bytes = read(STDIN_FILENO, buffer, sizeof(buffer));
  if (bytes < 0 && (errno == EINTR || errno == EAGAIN)) return;
  if (bytes <= 0) {
    input_open_ = false;
    if (input_watched_) epoll_ctl(control_.get(), EPOLL_CTL_DEL, STDIN_FILENO, nullptr);
    if (!input_.empty()) Answer(std::exchange(input_, {}));
    if (options_.until_end_of_input) quit_ = true;
    return;
  }
  input_.append(buffer, static_cast<size_t>(bytes));
  for (size_t end; !quit_ && (end = input_.find('\n')) != std::string::npos;) {
    const std::string line = input_.substr(0, end);
    input_.erase(0, end + 1);
    Answer(line);
  }
  if (input_.size() > kMaxLineBytes) {
    input_.clear();
    std::cout << "error: the line is too long" << std::endl;
  }
}

void Emulator::Answer(const std::string& line) {
  if (line.find_first_not_of(" \t\r") == std::string::npos) return;
  const absl::StatusOr<Command> command = ParseCommand(line);
  if (!command.ok()) {
    std::cout << "error: " << command.status().message() << std::endl;
    return;
  }
  if (command->kind == Command::Kind::kStatus) {
    std::cout << (options_.json ? StatusJson(Status()) : StatusTable(Status()) + "ok") << std::endl;
    return;
  }
  Execute(*command);
  std::cout << "ok" << std::endl;
}

void Emulator::Execute(const Command& command) {
  if (command.kind == Command::Kind::kQuit) quit_ = true;
  const TimeNs now_ns = MonotonicNowNs();
  for (auto [wanted, direction] :
       {std::pair(command.to_left, &to_left_), {command.to_right, &to_right_}}) {
    if (!wanted) continue;
    LinkSettings settings = direction->link.settings();
    if (command.kind == Command::Kind::kSet) SetLink(settings, command.settings).IgnoreError();
    if (command.kind == Command::Kind::kDown) settings.down = true;
    if (command.kind == Command::Kind::kUp) settings.down = false;
    direction->link.Change(now_ns, settings);
  }
}

EmulatorStatus Emulator::Status() {
  EmulatorStatus status{options_.left, options_.right, {}, {}, options_.seed, 0, 0};
  for (auto [told, direction] :
       {std::pair(&status.to_left, &to_left_), {&status.to_right, &to_right_}}) {
    told->settings = direction->link.settings();
    told->counters = direction->link.counters();
    told->kernel_drops = direction->from->counters().kernel_drops;
    told->receive_errors = direction->from->counters().receive_errors + direction->not_cut;
    told->send_errors = direction->to->counters().send_errors;
    told->no_memory = direction->no_memory;
  }
  status.seconds = static_cast<double>(MonotonicNowNs() - started_ns_) / 1e9;
  status.cpu_seconds = static_cast<double>(ThreadCpuTimeNs()) / 1e9;
  return status;
}

}  // namespace braid::linkem
