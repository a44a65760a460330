// Two interfaces joined by a link in each direction, the loop that drives them, and the commands
// that change them meanwhile.
//
//   left ──Receive──► cut ──► to_right ──Deliver──► Send── right
//        ◄────Send── Deliver ◄── to_left ◄── cut ◄─Receive──
//
// Frames enter a link at the time that the kernel stamped them with, so it does no harm to read
// them a moment late. Hence the loop reads and sends in batches: it lets time pass as long as
// nothing that may have arrived by then can be due.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/clock.h"
#include "io/unique_fd.h"
#include "linkem/command.h"
#include "linkem/ethernet_port.h"
#include "linkem/frame_cutter.h"
#include "linkem/frame_pool.h"
#include "linkem/link.h"

namespace braid::linkem {

struct EmulatorOptions {
  std::string left;
  std::string right;
  LinkSettings to_left;
  LinkSettings to_right;
  uint64_t seed = 0;
  Trace trace;
  bool until_end_of_input = false;
  bool json = false;
};

// What one direction has done. Sums of both ports where its frames pass.
struct DirectionStatus {
  LinkSettings settings;
  LinkCounters counters;
  uint64_t kernel_drops = 0;    // never read
  uint64_t receive_errors = 0;  // read, and refused: neither a frame nor something that can be cut
  uint64_t send_errors = 0;     // delivered, and refused by the kernel
  uint64_t no_memory = 0;       // too much under way
};

struct EmulatorStatus {
  std::string left;
  std::string right;
  DirectionStatus to_left;
  DirectionStatus to_right;
  uint64_t seed;
  double seconds;
  double cpu_seconds;
};

class Emulator {
 public:
  // Opens the interfaces; frames are taken from then on.
  static absl::StatusOr<std::unique_ptr<Emulator>> Create(EmulatorOptions options);

  // Until SIGINT, SIGTERM, the command quit, or an interface has gone away: that is an error.
  absl::Status Run();

  EmulatorStatus Status();

 private:
  struct Direction {
    Direction(const LinkSettings& settings, uint64_t seed) : random(seed), link(settings, random) {}

    Random random;
    Link<FramePtr> link;
    EthernetPort* from = nullptr;
    EthernetPort* to = nullptr;
    uint64_t not_cut = 0;
    uint64_t no_memory = 0;
  };

  explicit Emulator(EmulatorOptions options);
  absl::Status Open();

  absl::Status Receive(Direction& direction);
  void Enter(Direction& direction, const EthernetPort::Arrival& arrival);
  absl::Status Send(Direction& direction, TimeNs now_ns);
  TimeNs NextStepNs() const;
  void Rest();
  void Wait(TimeNs now_ns, TimeNs until_ns);

  void RunTrace(TimeNs now_ns);
  void Handle();
  void ReadInput();
  void Answer(const std::string& line);
  void Execute(const Command& command);

  const EmulatorOptions options_;
  FramePool pool_;  // outlives what holds frames
  std::unique_ptr<EthernetPort> left_;
  std::unique_ptr<EthernetPort> right_;
  Direction to_left_;
  Direction to_right_;
  FrameCutter cutter_;
  std::vector<EthernetPort::Arrival> arrivals_;
  bool busy_ = false;  // something arrived or left in this round
  bool more_ = false;  // and more has arrived

  UniqueFd epoll_;    // everything that ends a wait
  UniqueFd control_;  // of it, signals and standard input
  UniqueFd signals_;
  std::string input_;
  bool input_open_ = true;
  bool input_watched_ = false;
  bool quit_ = false;
  TimeNs handled_ns_ = 0;

  TimeNs started_ns_ = 0;
  TimeNs trace_began_ns_ = 0;
  size_t next_step_ = 0;
};

}  // namespace braid::linkem
