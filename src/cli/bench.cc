// `braid bench`: what this machine, and a tunnel on it, can do.
#include "cli/bench.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <iostream>
#include <nlohmann/json.hpp>

#include "absl/strings/numbers.h"
#include "absl/strings/str_format.h"
#include "cli/cli.h"
#include "cli/outcome.h"

namespace braid {
namespace {

constexpr DurationNs kTellEveryNs = 3 * kSecondNs;

}  // namespace

CLI::Validator Between(double least, double most) {
  const auto check = [least, most](const std::string& text) {
    double value = 0;
    const bool is_within = absl::SimpleAtod(text, &value) && value >= least && value <= most;
    if (is_within) return std::string();
    return absl::StrFormat("\"%s\" is not a number from %.10g to %.10g", text, least, most);
  };
  return CLI::Validator(check, absl::StrFormat("%.10g-%.10g", least, most));
}

void PinTo(int cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(static_cast<size_t>(cpu), &set);
  pthread_setaffinity_np(pthread_self(), sizeof(set), &set);
}

absl::StatusOr<UniqueFd> TakeOverSignals() {
  sigset_t ending;
  sigemptyset(&ending);
  for (const int number : {SIGINT, SIGTERM, SIGHUP}) sigaddset(&ending, number);
  pthread_sigmask(SIG_BLOCK, &ending, nullptr);
  UniqueFd fd(signalfd(-1, &ending, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!fd) return absl::ErrnoToStatus(errno, "signalfd");
  return fd;
}

int TakeSignal(int signal_fd) {
  signalfd_siginfo info{};
  const bool has_come = read(signal_fd, &info, sizeof(info)) == sizeof(info);
  return has_come ? static_cast<int>(info.ssi_signo) : 0;
}

BenchProgress::BenchProgress(int steps)
    : steps_(steps), is_terminal_(isatty(STDERR_FILENO) == 1), told_ns_(MonotonicNowNs()) {}

BenchProgress::~BenchProgress() {
  if (is_terminal_) std::cerr << "\r\x1b[K" << std::flush;
}

void BenchProgress::Step(const std::string& what) {
  const std::string text = absl::StrFormat("[%d/%d] %s", ++step_, steps_, what);
  if (is_terminal_) {
    std::cerr << '\r' << text << "\x1b[K" << std::flush;
  } else if (MonotonicNowNs() - told_ns_ >= kTellEveryNs) {
    told_ns_ = MonotonicNowNs();
    std::cerr << text << std::endl;
  }
}

template <typename Report>
std::string ReportText(const Report& report, bool json) {
  return json ? DescribeReport(report).dump(2) + '\n' : RenderReport(report);
}

template std::string ReportText(const CryptoReport&, bool);
template std::string ReportText(const DeviceReport&, bool);
template std::string ReportText(const TunnelReport&, bool);
template std::string ReportText(const PeerReport&, bool);

int PrintText(const std::string& text) {
  std::cout << text;
  return EndOutput("bench");
}

void AddBenchCommand(CLI::App& app, int& exit_code) {
  CLI::App* bench =
      app.add_subcommand("bench", "Measure this machine, a tunnel on it, or one that runs");
  bench->require_subcommand(1);
  AddBenchCryptoCommand(*bench, exit_code);
  AddBenchDeviceCommand(*bench, exit_code);
  AddBenchTunnelCommand(*bench, exit_code);
  AddBenchPeerCommand(*bench, exit_code);
  bench->footer("Help on a measurement: braid bench NAME --help");  // last, or they inherit it
}

}  // namespace braid
