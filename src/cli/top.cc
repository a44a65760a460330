// `braid top`: the running daemon, live. A thread asks it for its status, so that keys are answered
// however long it takes; the main thread draws.
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <iostream>
#include <memory>
#include <mutex>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <utility>

#include "absl/status/statusor.h"
#include "base/clock.h"
#include "cli/cli.h"
#include "cli/outcome.h"
#include "cli/socket_option.h"
#include "cli/text_layout.h"
#include "cli/tint.h"
#include "cli/top_layout.h"
#include "cli/top_model.h"
#include "cli/top_screen.h"
#include "io/unique_fd.h"
#include "slowpath/control_client.h"

namespace braid {
namespace {

constexpr double kMinIntervalSeconds = 0.1;
constexpr double kMaxIntervalSeconds = 60;
constexpr std::chrono::seconds kTopTimeout{3};
constexpr int kPageRows = 10;
constexpr size_t kWidestOnce = 500;

struct TopArguments {
  std::string socket{kDefaultControlSocket};
  double interval_s = 1;
  bool once = false;

  std::chrono::nanoseconds interval() const {
    return std::chrono::nanoseconds(static_cast<int64_t>(interval_s * 1e9));
  }
};

// A status, or why there is none, with the time at which it was asked for.
struct Answer {
  nlohmann::ordered_json status;
  std::string problem;  // empty: there is a status
  TimeNs taken_ns = 0;
};

Answer AskDaemon(const std::string& socket) {
  Answer answer{.taken_ns = MonotonicNowNs()};
  const auto reply = CallControl(socket, "status", "{}", kTopTimeout);
  if (!reply.ok()) {
    answer.problem = std::string(reply.status().message());
    return answer;
  }
  answer.status = nlohmann::ordered_json::parse(*reply, nullptr, false);
  if (answer.status.is_discarded()) answer.problem = "the daemon answers with what is no JSON";
  return answer;
}

void Apply(const Answer& answer, TopModel& model) {
  answer.problem.empty() ? model.Take(answer.status, answer.taken_ns) : model.Miss(answer.problem);
}

// Asks again and again, on a thread of its own, until it is gone.
class Asker {
 public:
  explicit Asker(const TopArguments& arguments)
      : arguments_(arguments),
        ready_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
        thread_([this](const std::stop_token& stop) { Run(stop); }) {}

  int ready_fd() const { return ready_.get(); }

  // The newest answer that was not taken yet.
  std::optional<Answer> Take() {
    uint64_t count = 0;
    (void)!read(ready_.get(), &count, sizeof(count));
    const std::lock_guard lock(mutex_);
    return std::exchange(answer_, std::nullopt);
  }

 private:
  void Run(const std::stop_token& stop) {
    // Signals are for the thread that draws: its wait has to end with them.
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, nullptr);
    while (!stop.stop_requested()) {
      Answer answer = AskDaemon(arguments_.socket);
      const uint64_t one = 1;
      std::unique_lock lock(mutex_);
      answer_ = std::move(answer);
      (void)!write(ready_.get(), &one, sizeof(one));
      wake_.wait_for(lock, stop, arguments_.interval(), [] { return false; });
    }
  }

  const TopArguments& arguments_;
  const UniqueFd ready_;
  std::mutex mutex_;
  std::condition_variable_any wake_;
  std::optional<Answer> answer_;
  std::jthread thread_;  // the last: it uses all of the above
};

// Signals that end the program are taken as a wish to quit, so that the terminal is restored; they
// come only while ppoll() waits, so that none is missed.
class EndingSignals {
 public:
  EndingSignals() {
    sigset_t ending;
    sigemptyset(&ending);
    for (const int number : kNumbers) sigaddset(&ending, number);
    pthread_sigmask(SIG_BLOCK, &ending, &before_);
  }
  // After ncurses, which has handlers of its own.
  void Handle() {
    struct sigaction action {};
    action.sa_handler = [](int number) { came_ = number; };
    for (const int number : kNumbers) sigaction(number, &action, nullptr);
  }
  const sigset_t* while_waiting() const { return &before_; }
  static bool came() { return came_ != 0; }

 private:
  static constexpr int kNumbers[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT};
  static volatile sig_atomic_t came_;
  sigset_t before_{};
};
volatile sig_atomic_t EndingSignals::came_ = 0;

// One run of the live view.
class Top {
 public:
  Top(const TopArguments& arguments, TopScreen screen)
      : asker_(arguments), screen_(std::move(screen)) {
    view_.interval_s = arguments.interval_s;
  }

  void Run(const EndingSignals& signals);

 private:
  void Draw() { screen_.Draw(LayOutTop(model_.state(), view_, screen_.width(), screen_.height())); }
  // False: to end.
  bool Handle(TopKey key);
  void Move(int steps) { view_.peer = MovePeer(model_.state(), view_, steps); }

  TopModel model_;
  TopView view_;
  Asker asker_;
  TopScreen screen_;  // the last: the terminal is given back before an answer is waited for
};

bool Top::Handle(TopKey key) {
  constexpr int kFar = 1 << 30;
  switch (key) {
    case TopKey::kQuit:
      return false;
    case TopKey::kPause:
      view_.paused = !view_.paused;
      return true;
    case TopKey::kSort:
      view_.sort =
          static_cast<TopSort>((static_cast<size_t>(view_.sort) + 1) % std::size(kTopSortNames));
      return true;
    case TopKey::kUp:
      Move(-1);
      return true;
    case TopKey::kDown:
      Move(1);
      return true;
    case TopKey::kPageUp:
      Move(-kPageRows);
      return true;
    case TopKey::kPageDown:
      Move(kPageRows);
      return true;
    case TopKey::kHome:
      Move(-kFar);
      return true;
    case TopKey::kEnd:
      Move(kFar);
      return true;
    case TopKey::kHelp:
      view_.help = !view_.help;
      return true;
    default:
      return true;
  }
}

void Top::Run(const EndingSignals& signals) {
  while (!EndingSignals::came()) {
    pollfd events[] = {{STDIN_FILENO, POLLIN, 0}, {asker_.ready_fd(), POLLIN, 0}};
    // A change of the window's size ends this wait, too, and comes as a key.
    if (ppoll(events, std::size(events), nullptr, signals.while_waiting()) < 0 && errno != EINTR) {
      return;
    }
    if ((events[0].revents & (POLLHUP | POLLERR | POLLNVAL)) != 0) return;  // the terminal is gone
    if ((events[1].revents & POLLIN) != 0) {
      // What comes meanwhile is left out: the rates then are over the whole pause.
      if (const auto answer = asker_.Take(); answer && !view_.paused) Apply(*answer, model_);
    }
    for (TopKey key = screen_.Key(); key != TopKey::kNone; key = screen_.Key()) {
      if (!Handle(key)) return;
    }
    Draw();
  }
}

size_t OnceWidth() {
  winsize size{};
  if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) return size.ws_col;
  const char* columns = std::getenv("COLUMNS");
  const int wanted = columns == nullptr ? 0 : std::atoi(columns);
  return wanted > 0 ? std::min<size_t>(static_cast<size_t>(wanted), kWidestOnce) : kColumns;
}

// Two answers, since one alone has no rates.
int TopOnce(const TopArguments& arguments) {
  TopModel model;
  for (const bool is_last : {false, true}) {
    const Answer answer = AskDaemon(arguments.socket);
    if (!answer.problem.empty()) return Fail("top", answer.problem);
    Apply(answer, model);
    if (!is_last) std::this_thread::sleep_for(arguments.interval());
  }
  TopView view;
  view.interval_s = arguments.interval_s;
  for (const TopLine& line : LayOutTop(model.state(), view, OnceWidth(), kTopUnlimited)) {
    std::cout << RenderLine(line, WantsColour(STDOUT_FILENO)) << '\n';
  }
  return EndOutput("top");
}

int ShowTop(const TopArguments& arguments) {
  if (arguments.once) return TopOnce(arguments);
  if (isatty(STDIN_FILENO) != 1 || isatty(STDOUT_FILENO) != 1) {
    return Fail("top", "needs a terminal; \"braid top --once\" prints what it shows");
  }
  EndingSignals signals;  // before there are threads: they inherit what is blocked
  auto screen = TopScreen::Open(WantsColour(STDOUT_FILENO));
  if (!screen.ok()) return Fail("top", screen.status());
  signals.Handle();
  Top(arguments, *std::move(screen)).Run(signals);
  return 0;
}

}  // namespace

void AddTopCommand(CLI::App& app, int& exit_code) {
  CLI::App* command =
      app.add_subcommand("top", "Show paths, peers, rates and drops of the running daemon, live");
  const auto arguments = std::make_shared<TopArguments>();
  AddSocketOption(*command, arguments->socket);
  command->add_option("--interval", arguments->interval_s, "How often it is asked")
      ->type_name("SECONDS")
      ->check(CLI::Range(kMinIntervalSeconds, kMaxIntervalSeconds))
      ->capture_default_str();
  command->add_flag("--once", arguments->once, "Print it once as text, for what is no terminal");
  command->callback([arguments, &exit_code] { exit_code = ShowTop(*arguments); });
}

}  // namespace braid
