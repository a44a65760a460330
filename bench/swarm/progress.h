// What the swarm is doing, once a second, on standard error; and whether somebody wants it to end.
#pragma once

#include <string>

#include "base/clock.h"

namespace braid::swarm {

class Progress {
 public:
  // At most once a second, in place on a terminal.
  void Show(const std::string& text);
  // At once, and it stays.
  void Say(const std::string& text);

 private:
  TimeNs next_ns_ = 0;
  bool line_open_ = false;
};

// SIGINT and SIGTERM end the running phase early, but in order.
void TakeSignals();
bool Interrupted();

// "12,345"
std::string Grouped(double value);

}  // namespace braid::swarm
