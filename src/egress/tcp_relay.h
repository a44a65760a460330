// A thread that moves the bytes of TCP flows that leave past the tunnel, between what the kernel's
// own TCP has accepted of an application (the near end) and a connection to where it wanted to
// (the far end).
//
//   worker ── SYN of a flow, once its far end is there ──► kernel ──► accepted here by its port ─┐
//   slow path ── Expect(port, far end) ──────────────────────────────────────────────► near
//   ◄────┼──► far ◄── on_end(flow) ── both ends are closed
//   ────────────────────────────────────────────────────┘
//
// What one end sends the other gets, in order; the end of a direction is passed on by itself (half
// close), a reset as a reset. What an end does not take is not read of the other for long: so
// backpressure goes from one kernel's buffers to the other's, and next to nothing is kept here.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/address.h"
#include "base/clock.h"
#include "base/counters.h"
#include "base/ring.h"
#include "fastpath/egress_options.h"
#include "fastpath/mailbox.h"
#include "io/unique_fd.h"

namespace braid {

class TcpRelay {
 public:
  // On the relay's thread; it neither waits nor calls the relay. False: there is no room to take
  // it, and it is to be called again.
  using OnEnd = std::function<bool(const TcpFlowId&)>;

  // What a flow's first bytes say of the name of its destination; empty: nothing.
  using OnFirst = std::function<bool(const TcpFlowId&, const std::string& name)>;

  struct Options {
    int index = 0;
    std::vector<IpAddress> listen;  // of each family at most one; the port is the kernel's choice
    std::vector<IpAddress> neighbours;  // that near ends come from, by family as `listen`
    std::string device;                 // and by which; empty: any
    int max_flows = 20'000;
    DurationNs accept_within_ns = 60 * kSecondNs;  // then a flow that was expected is given up
    DurationNs idle_ns = 7200 * kSecondNs;         // of both directions; then the flow is reset
    DurationNs first_bytes_within_ns = 300 * kMillisecondNs;  // then they are not waited for
    OnEnd on_end;
    OnFirst on_first;  // as on_end
  };

  // Opens its listening sockets; nothing runs yet.
  static absl::StatusOr<std::unique_ptr<TcpRelay>> Listen(Options options);
  ~TcpRelay();
  TcpRelay(const TcpRelay&) = delete;
  TcpRelay& operator=(const TcpRelay&) = delete;

  void Start();
  // Ends it: both ends of every flow are told so, by a FIN, for which it takes a moment. What has
  // been read and not sent is not waited for. Safe when not started, and again.
  void Stop();
  // It begins to, while others do.
  void BeginStop();

  // That near ends are to be sent to; 0 where it does not listen.
  uint16_t PortOf(IpAddress::Family family) const;

  // --- From any thread; false when there is no room ---

  // The flow's near end is going to be accepted. `far` is connected, or unset: then it comes by
  // Connect(), and nothing is read until then. `hold` goes when the flow has ended.
  bool Expect(const TcpFlowId& flow, UniqueFd far, std::shared_ptr<void> hold = nullptr);
  bool Connect(const TcpFlowId& flow, UniqueFd far, std::shared_ptr<void> hold = nullptr);
  // As without a far end; on_first() follows, once the flow has said where it wants to.
  bool ExpectFirst(const TcpFlowId& flow);
  // There is no far end: the near one is reset. Also ends any other flow.
  bool Reset(const TcpFlowId& flow);
  // All of them.
  bool ResetAll();

  // --- Read at any time ---
  struct Totals {
    Counter accepted;
    Counter unexpected;  // accepted, but nobody had expected it, or there were no descriptors
    Counter up_bytes;    // from near to far
    Counter down_bytes;
    Counter reset;                   // by either end, or by Reset()
    Counter idle;                    // ended for it
    std::atomic<uint64_t> flows{0};  // that are there, also those expected only
    std::atomic<uint64_t> kept_bytes{0};
  };
  const Totals& totals() const { return totals_; }

 private:
  struct Flow;
  struct Message {
    enum class Type : uint8_t { kNone, kExpect, kExpectFirst, kConnect, kReset, kResetAll, kStop };
    Type type = Type::kNone;
    TcpFlowId flow;
    UniqueFd far;
    std::shared_ptr<void> hold;
  };

  explicit TcpRelay(Options options);
  bool Tell(Message&& message);
  void Run();
  void TakeMessages();
  void Take(Message& message);
  void Accept(int listener, bool v6);
  bool RefuseForWantOfFiles(int listener);
  void OnEvent(uint64_t tag, uint32_t events);
  void Join(uint32_t place);
  void LookAtFirst(uint32_t place, bool is_late);
  void TellOfFirst();
  DurationNs SleepNs() const;
  // Moves what it can from one end to the other. False when the flow is over.
  bool Move(uint32_t place, int from);
  bool FlushKept(Flow& flow, int from);
  bool AwaitHeard(uint32_t place);
  void EndFlow(uint32_t place, bool reset);
  void TellOfEnds();
  void SayFarewell();
  void Sweep(TimeNs now_ns);
  uint32_t TakePlace();
  uint32_t Find(const TcpFlowId& flow) const;

  const Options options_;
  std::vector<UniqueFd> listeners_;
  std::array<uint16_t, 2> ports_{};  // of IPv4 and IPv6
  UniqueFd epoll_;
  Doorbell doorbell_;
  Ring<Message> messages_;
  bool stopping_ = false;
  bool has_begun_stop_ = false;  // the owner's
  TimeNs now_ns_ = 0;
  TimeNs next_sweep_ns_ = 0;
  std::vector<Flow> flows_;
  std::vector<uint32_t> free_;
  std::vector<uint32_t> again_;  // that have had their share and are not done
  std::deque<TcpFlowId> ended_;  // of which nobody could be told yet
  struct First {
    TcpFlowId flow;
    std::string name;
  };
  std::deque<First> first_;                                // as well
  std::deque<std::pair<TimeNs, TcpFlowId>> awaits_first_;  // and until when, soonest first
  std::array<std::vector<uint32_t>, 2> by_port_;
  std::unique_ptr<uint8_t[]> scratch_;
  UniqueFd spare_;  // to be given up where there are no more descriptors
  Totals totals_;
  std::thread thread_;
};

}  // namespace braid
