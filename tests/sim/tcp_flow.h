// A TCP connection through the bond: one host sends, the other acknowledges. Its segments are
// counted, not their bytes. Loss recovery is by SACK and time (RFC 2018, 2883, 6675, RACK-TLP: RFC
// 8985, RTO: RFC 6298), and takes back what was taken for a loss and was not (RFC 3522, 3708), all
// of that as Linux does.
#pragma once

#include <array>
#include <deque>
#include <memory>
#include <set>
#include <string>

#include "sim/congestion_control.h"
#include "sim/flow.h"
#include "sim/range_set.h"

namespace braid::sim {

inline constexpr uint32_t kSegmentBytes = 1368;         // at an inner MTU of 1420
inline constexpr uint32_t kTcpOverheadBytes = 20 + 32;  // IPv4, TCP with timestamps

struct TcpSettings {
  std::string congestion_control = "cubic";  // or "bbr"
  int from_end = 0;
  uint64_t window_bytes = 4 << 20;  // that the receiver has room for
  bool ecn = false;
  bool unlimited = true;  // there is always more to send; else what Write() is given
};

// What a TCP segment or acknowledgement says.
struct TcpHeader {
  static constexpr size_t kMostSacks = 4;

  bool is_ack = false;
  bool duplicate = false;  // the first of sacks came twice
  bool mark_echo = false;
  bool window_reduced = false;
  uint8_t sacks_used = 0;
  uint32_t number = 0;  // of a segment
  uint32_t next = 0;    // of an acknowledgement: everything before has come
  uint64_t stamp_ms = 0;
  uint64_t echo_ms = 0;
  std::array<RangeSet::Range, kMostSacks> sacks;
};

class TcpFlow : public Flow {
 public:
  TcpFlow(Hosts& hosts, uint32_t number, const TcpSettings& settings);

  void Stop() override;
  // The program has more to send.
  void Write(uint32_t segments);

  double goodput_bits_per_s(TimeNs from_ns, TimeNs until_ns) const {
    return meter(settings_.from_end).goodput_bits_per_s(from_ns, until_ns);
  }
  uint32_t window() const { return control_->window(); }
  std::string phase() const { return control_->Phase(); }
  uint64_t sent_again() const { return sent_again_; }
  uint64_t recoveries() const { return recoveries_; }
  uint64_t timeouts() const { return timeouts_; }
  uint64_t undone() const { return undone_; }
  DurationNs rtt_ns() const { return rtt_ns_; }
  // All that the program wrote has been acknowledged.
  bool done() const { return first_unacked_ == written_; }
  std::string Details() const override;

 private:
  // Of the sender: a segment that is not acknowledged yet.
  struct Segment {
    TimeNs sent_ns = 0;
    bool sacked = false;
    bool lost = false;
    bool again_under_way = false;  // sent again, and that not taken for lost
    uint32_t sendings = 0;
    // When it left: for the rate sample.
    uint64_t delivered = 0;
    TimeNs delivered_ns = 0;
    TimeNs first_sent_ns = 0;
    bool source_limited = false;
  };
  struct Sending {
    uint32_t number;
    uint32_t sendings;
    TimeNs sent_ns;
  };
  enum class State { kOpen, kRecovery, kLoss };

  void OnPacket(int at_end, const InnerPacket& packet) override;

  // Receiver.
  void OnSegment(const TcpHeader& header, bool marked);
  void Acknowledge();

  // Sender.
  void OnAck(const TcpHeader& header);
  void Delivered(uint32_t number, AckSample& sample);
  void FindLosses(AckSample& sample);
  void TakeForLost(uint32_t number);
  void EnterRecovery();
  void Undo();
  void SendWhatMay();
  bool SendNext();
  void Transmit(uint32_t number);
  void OnRetransmissionTimer();
  void SetRetransmissionTimer();
  Segment& At(uint32_t number) { return segments_[number - first_unacked_]; }
  uint32_t next_number() const { return first_unacked_ + static_cast<uint32_t>(segments_.size()); }
  uint64_t now_ms() const { return now_ns() / kMillisecondNs; }

  const TcpSettings settings_;
  const uint32_t window_segments_;
  std::unique_ptr<CongestionControl> control_;

  // Receiver.
  uint32_t expected_ = 0;
  RangeSet early_;
  std::deque<uint32_t> newest_early_;  // where the newest segments ahead of a gap were
  bool has_duplicate_ = false;
  RangeSet::Range duplicate_{};
  uint64_t echo_ms_ = 0;
  uint32_t last_acked_ = 0;
  uint32_t unacked_segments_ = 0;
  uint64_t received_ = 0;
  bool echo_mark_ = false;
  Timer delayed_ack_;

  // Sender.
  uint32_t written_ = UINT32_MAX;
  uint32_t first_unacked_ = 0;
  std::deque<Segment> segments_;
  std::deque<Sending> sendings_;  // in the order of time; those that were overtaken are left in
  std::set<uint32_t> to_send_again_;
  RangeSet sacked_ranges_;
  uint32_t sacked_ = 0;
  uint32_t in_flight_ = 0;
  State state_ = State::kOpen;
  uint32_t recover_until_ = 0;
  uint64_t delivered_ = 0;
  TimeNs delivered_ns_ = 0;
  TimeNs first_sent_ns_ = 0;
  uint64_t source_limited_until_ = 0;
  bool window_limited_ = false;

  // Loss by time.
  TimeNs newest_sent_ns_ = 0;  // of what was delivered
  DurationNs newest_rtt_ns_ = 0;
  bool reordering_seen_ = false;
  uint32_t highest_delivered_ = 0;
  uint32_t reordering_steps_ = 1;
  uint32_t steps_grew_at_ = 0;
  Timer reordering_timer_;

  // Undo.
  bool may_undo_ = false;
  uint32_t again_unacked_ = 0;   // segments that were sent again
  uint64_t first_again_ms_ = 0;  // when the first of them was
  uint32_t undo_from_ = 0;
  uint32_t again_unconfirmed_ = 0;  // sendings that nothing shows to have been needless

  // Time.
  DurationNs rtt_ns_ = 0;
  DurationNs rtt_deviation_ns_ = 0;
  DurationNs min_rtt_ns_ = kNever;
  uint32_t backoff_ = 0;
  bool tail_probe_sent_ = false;
  bool timer_is_tail_probe_ = false;
  Timer retransmission_timer_;

  TimeNs next_send_ns_ = 0;
  Timer pacing_timer_;

  uint32_t mark_until_ = 0;
  bool tell_reduced_ = false;

  uint64_t sent_again_ = 0;
  uint64_t recoveries_ = 0;
  uint64_t timeouts_ = 0;
  uint64_t undone_ = 0;
  bool stopped_ = false;
};

}  // namespace braid::sim
