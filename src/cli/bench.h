// What the subcommands of `braid bench` have in common: how they are registered, how they tell how
// far they are, and how they end.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/clock.h"
#include "cli/bench_report.h"
#include "io/unique_fd.h"

namespace CLI {
class App;
class Validator;
}  // namespace CLI

namespace braid {

void AddBenchCryptoCommand(CLI::App& bench, int& exit_code);
void AddBenchDeviceCommand(CLI::App& bench, int& exit_code);
void AddBenchTunnelCommand(CLI::App& bench, int& exit_code);
void AddBenchPeerCommand(CLI::App& bench, int& exit_code);

// Of an option's number, both ends included; help shows them behind the unit.
CLI::Validator Between(double least, double most);

// The calling thread keeps to this one.
void PinTo(int cpu);

// The signals that ask a program to end are from now on only read from this descriptor, so that a
// bench ends in order. Called before any other thread is started.
absl::StatusOr<UniqueFd> TakeOverSignals();
// The signal that has come there; 0 when none has.
int TakeSignal(int signal_fd);

// On standard error: one line that is written anew on a terminal, and elsewhere a line every few
// seconds.
class BenchProgress {
 public:
  explicit BenchProgress(int steps);
  ~BenchProgress();
  // Begins the next step.
  void Step(const std::string& what);

 private:
  const int steps_;
  const bool is_terminal_;
  int step_ = 0;
  TimeNs told_ns_ = 0;
};

int PrintText(const std::string& text);
template <typename Report>
std::string ReportText(const Report& report, bool json);

// The report on standard output; the program's exit code.
template <typename Report>
int PrintReport(const Report& report, bool json) {
  return PrintText(ReportText(report, json));
}

extern template std::string ReportText(const CryptoReport&, bool);
extern template std::string ReportText(const DeviceReport&, bool);
extern template std::string ReportText(const TunnelReport&, bool);
extern template std::string ReportText(const PeerReport&, bool);

}  // namespace braid
