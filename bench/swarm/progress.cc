#include "progress.h"

#include <signal.h>
#include <unistd.h>

#include <cmath>
#include <cstdio>

namespace braid::swarm {
namespace {

volatile sig_atomic_t interrupted = 0;

void OnSignal(int) { interrupted = 1; }

}  // namespace

void Progress::Show(const std::string& text) {
  const TimeNs now_ns = MonotonicNowNs();
  if (now_ns < next_ns_) return;
  next_ns_ = now_ns + kSecondNs;
  if (isatty(STDERR_FILENO) == 0) return Say(text);
  fprintf(stderr, "\r\033[K%s", text.c_str());
  line_open_ = true;
}

void Progress::Say(const std::string& text) {
  fprintf(stderr, "%s%s\n", line_open_ ? "\r\033[K" : "", text.c_str());
  line_open_ = false;
}

void TakeSignals() {
  struct sigaction action {};
  action.sa_handler = OnSignal;
  for (const int number : {SIGINT, SIGTERM}) sigaction(number, &action, nullptr);
}

bool Interrupted() { return interrupted != 0; }

std::string Grouped(double value) {
  std::string text = std::to_string(std::llround(value));
  for (auto at = static_cast<int>(text.size()) - 3; at > 0; at -= 3) {
    if (text[static_cast<size_t>(at) - 1] != '-') text.insert(static_cast<size_t>(at), ",");
  }
  return text;
}

}  // namespace braid::swarm
