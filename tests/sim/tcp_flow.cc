#include "sim/tcp_flow.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_format.h"

namespace braid::sim {
namespace {

constexpr DurationNs kDelayedAckNs = 40 * kMillisecondNs;
constexpr uint64_t kQuickAcks = 16;  // at first every segment is acknowledged at once
constexpr DurationNs kLeastTimeoutNs = 200 * kMillisecondNs;
constexpr DurationNs kFirstTimeoutNs = kSecondNs;
constexpr DurationNs kMostTimeoutNs = 120 * kSecondNs;
constexpr DurationNs kLeastTailProbeNs = 2 * kMillisecondNs;
constexpr uint32_t kDuplicateThreshold = 3;
constexpr uint32_t kMostReorderingSteps = 255;
constexpr size_t kEarlyRemembered = 8;
constexpr double kMostTrainSegments = 44;

std::unique_ptr<CongestionControl> Make(const std::string& name) {
  return name == "bbr" ? MakeBbr() : MakeCubic();
}

uint16_t AckBytes(size_t sacks) {
  return static_cast<uint16_t>(kTcpOverheadBytes + (sacks == 0 ? 0 : 4 + 8 * sacks));
}

}  // namespace

TcpFlow::TcpFlow(Hosts& hosts, uint32_t number, const TcpSettings& settings)
    : Flow(hosts, number, absl::StrFormat("%s %d", settings.congestion_control, number)),
      settings_(settings),
      window_segments_(static_cast<uint32_t>(settings.window_bytes / kSegmentBytes)),
      control_(Make(settings.congestion_control)),
      delayed_ack_(loop(), [this] { Acknowledge(); }),
      written_(settings.unlimited ? UINT32_MAX : 0),
      reordering_timer_(loop(),
                        [this] {
                          AckSample sample;
                          FindLosses(sample);
                          SendWhatMay();
                        }),
      retransmission_timer_(loop(), [this] { OnRetransmissionTimer(); }),
      pacing_timer_(loop(), [this] { SendWhatMay(); }) {
  pacing_timer_.Set(now_ns());
}

void TcpFlow::Stop() {
  stopped_ = true;
  for (Timer* timer : {&delayed_ack_, &reordering_timer_, &retransmission_timer_, &pacing_timer_}) {
    timer->Cancel();
  }
}

void TcpFlow::Write(uint32_t segments) {
  written_ += segments;
  SendWhatMay();
}

void TcpFlow::OnPacket(int at_end, const InnerPacket& packet) {
  if (stopped_) return;
  const auto header = packet.own<TcpHeader>();
  if (at_end == settings_.from_end) {
    OnAck(header);
  } else {
    OnSegment(header, packet.marked());
  }
}

// --- Receiver ---

void TcpFlow::OnSegment(const TcpHeader& header, bool marked) {
  ++received_;
  if (header.window_reduced) echo_mark_ = false;
  if (marked) echo_mark_ = true;
  const uint32_t number = header.number;
  if (number <= last_acked_ && header.stamp_ms >= echo_ms_) echo_ms_ = header.stamp_ms;
  if (number < expected_ || early_.Has(number)) {
    has_duplicate_ = true;
    duplicate_ = {number, number + 1};
    return Acknowledge();
  }
  const bool in_order = number == expected_;
  const bool had_gap = !early_.empty();
  early_.Add(number);
  if (in_order) {
    const uint32_t until = early_.RangeOf(number).end;
    CountGoodput(settings_.from_end, uint64_t{until - expected_} * kSegmentBytes);
    expected_ = until;
    early_.EraseBelow(expected_);
  } else {
    newest_early_.push_front(number);
    if (newest_early_.size() > kEarlyRemembered) newest_early_.pop_back();
  }
  ++unacked_segments_;
  if (!in_order || had_gap || received_ <= kQuickAcks || echo_mark_) return Acknowledge();
  // What comes at once is joined on its way to TCP, and acknowledged together.
  if (unacked_segments_ >= 2) return delayed_ack_.Set(now_ns());
  if (delayed_ack_.due_ns() == kNever) delayed_ack_.Set(now_ns() + kDelayedAckNs);
}

void TcpFlow::Acknowledge() {
  delayed_ack_.Cancel();
  unacked_segments_ = 0;
  last_acked_ = expected_;
  TcpHeader header;
  header.is_ack = true;
  header.next = expected_;
  header.stamp_ms = now_ms();
  header.echo_ms = echo_ms_;
  header.mark_echo = echo_mark_;
  const auto add = [&](RangeSet::Range range) {
    for (uint8_t i = header.duplicate ? 1 : 0; i < header.sacks_used; ++i) {
      if (header.sacks[i].begin == range.begin) return;
    }
    // Timestamps leave room for three.
    if (header.sacks_used < TcpHeader::kMostSacks - 1) header.sacks[header.sacks_used++] = range;
  };
  if (has_duplicate_) {
    header.duplicate = true;
    header.sacks[header.sacks_used++] = duplicate_;
    has_duplicate_ = false;
  }
  for (const uint32_t number : newest_early_) {
    const RangeSet::Range range = early_.RangeOf(number);
    if (range.begin < range.end) add(range);
  }
  InnerPacket packet;
  packet.bytes = AckBytes(header.sacks_used);
  packet.set_own(header);
  Send(1 - settings_.from_end, packet);
}

// --- Sender: what is acknowledged ---

void TcpFlow::OnAck(const TcpHeader& header) {
  AckSample sample;
  sample.now_ns = now_ns();
  sample.in_flight_before = in_flight_;
  sample.window_limited = window_limited_;
  if (header.next > next_number()) return;
  const uint32_t first_before = first_unacked_;
  const bool had_again = again_unconfirmed_ > 0;

  // In the order of their numbers, as Linux goes through its queue.
  bool again_acked = false;
  while (first_unacked_ < header.next) {
    Segment& segment = segments_.front();
    if (segment.sendings > 1) {
      again_acked = true;
      --again_unacked_;
    }
    if (!segment.sacked) {
      Delivered(first_unacked_, sample);
    } else {
      --sacked_;
    }
    to_send_again_.erase(first_unacked_);
    segments_.pop_front();
    ++first_unacked_;
  }
  sacked_ranges_.EraseBelow(first_unacked_);
  sample.acked = first_unacked_ - first_before;
  for (uint8_t i = 0; i < header.sacks_used; ++i) {
    if (i == 0 && header.duplicate) {
      if (again_unconfirmed_ > 0 && header.sacks[i].begin >= undo_from_) --again_unconfirmed_;
      // Reordering it was, not loss: more patience, once in a round trip.
      if (header.next >= steps_grew_at_ && reordering_steps_ < kMostReorderingSteps) {
        ++reordering_steps_;
        reordering_seen_ = true;
        steps_grew_at_ = next_number();
      }
      continue;
    }
    sacked_ranges_.Add(std::max(header.sacks[i].begin, first_unacked_),
                       std::min(header.sacks[i].end, next_number()), [&](uint32_t number) {
                         Delivered(number, sample);
                         At(number).sacked = true;
                         ++sacked_;
                         to_send_again_.erase(number);
                       });
  }
  if (sample.delivered != 0) {
    backoff_ = 0;
    tail_probe_sent_ = false;
  }
  sample.delivered_ever = delivered_;
  sample.min_rtt_ns = min_rtt_ns_ == kNever ? 0 : min_rtt_ns_;

  // What was sent again had come: the acknowledgement is of the first sending, or it came twice.
  if (state_ != State::kOpen && may_undo_) {
    const bool of_first_sending =
        again_acked && header.echo_ms != 0 && header.echo_ms < first_again_ms_;
    const bool all_came_twice = had_again && again_unconfirmed_ == 0;
    if ((sample.acked > 0 && of_first_sending) || all_came_twice) Undo();
  }
  FindLosses(sample);
  if (state_ != State::kOpen && first_unacked_ >= recover_until_) {
    state_ = State::kOpen;
    may_undo_ = false;
    control_->OnRecoveryEnd();
  }
  if (state_ == State::kOpen && !to_send_again_.empty()) EnterRecovery();
  if (header.mark_echo && state_ == State::kOpen && first_unacked_ >= mark_until_) {
    mark_until_ = next_number();
    tell_reduced_ = true;
    control_->OnMark(now_ns());
  }
  sample.in_flight = in_flight_;
  control_->OnAck(sample);
  if (sample.acked > 0 || sample.delivered > 0) SetRetransmissionTimer();
  SendWhatMay();
}

void TcpFlow::Delivered(uint32_t number, AckSample& sample) {
  Segment& segment = At(number);
  if (!segment.lost || segment.again_under_way) --in_flight_;
  if (!segment.lost && segment.again_under_way) --in_flight_;
  ++delivered_;
  ++sample.delivered;
  delivered_ns_ = now_ns();

  const DurationNs rtt_ns = now_ns() - segment.sent_ns;
  if (segment.sendings == 1) {
    if (number < highest_delivered_) reordering_seen_ = true;
    sample.rtt_ns = rtt_ns;
    min_rtt_ns_ = std::min(min_rtt_ns_, rtt_ns);
    if (rtt_ns_ == 0) {
      rtt_ns_ = rtt_ns;
      rtt_deviation_ns_ = rtt_ns / 2;
    } else {
      const DurationNs off_ns = std::max(rtt_ns, rtt_ns_) - std::min(rtt_ns, rtt_ns_);
      rtt_deviation_ns_ = (rtt_deviation_ns_ * 3 + off_ns) / 4;
      rtt_ns_ = (rtt_ns_ * 7 + rtt_ns) / 8;
    }
  }
  highest_delivered_ = std::max(highest_delivered_, number);
  // Of one that was sent again it cannot be known which sending this is, unless it was long ago.
  if ((segment.sendings == 1 || rtt_ns >= min_rtt_ns_) && segment.sent_ns >= newest_sent_ns_) {
    newest_sent_ns_ = segment.sent_ns;
    newest_rtt_ns_ = rtt_ns;
  }
  // The newest one makes the sample.
  if (segment.delivered >= sample.delivered_before) {
    sample.delivered_before = segment.delivered;
    first_sent_ns_ = segment.sent_ns;
    const DurationNs send_ns = segment.sent_ns - segment.first_sent_ns;
    const DurationNs ack_ns = now_ns() - segment.delivered_ns;
    const DurationNs elapsed_ns = std::max(send_ns, ack_ns);
    sample.source_limited = segment.source_limited;
    sample.segments_per_s = elapsed_ns == 0 || elapsed_ns < min_rtt_ns_
                                ? 0
                                : static_cast<double>(delivered_ - segment.delivered) * kSecondNs /
                                      static_cast<double>(elapsed_ns);
  }
}

// --- Sender: what is lost ---

// RFC 8985: what was sent before something that has been delivered, by a time in which reordering
// should have ended.
void TcpFlow::FindLosses(AckSample& sample) {
  DurationNs patience_ns = 0;
  const bool few_seen = sacked_ < kDuplicateThreshold && state_ == State::kOpen;
  if (min_rtt_ns_ != kNever && (reordering_seen_ || few_seen)) {
    patience_ns = std::min(reordering_steps_ * (min_rtt_ns_ / 4), rtt_ns_);
  }
  reordering_timer_.Cancel();
  while (!sendings_.empty()) {
    const Sending sending = sendings_.front();
    const bool present = sending.number >= first_unacked_ && !At(sending.number).sacked &&
                         At(sending.number).sendings == sending.sendings &&
                         !(At(sending.number).lost && !At(sending.number).again_under_way);
    if (!present) {
      sendings_.pop_front();
      continue;
    }
    if (sending.sent_ns >= newest_sent_ns_) break;
    const TimeNs lost_at_ns = sending.sent_ns + newest_rtt_ns_ + patience_ns;
    if (now_ns() < lost_at_ns) {
      reordering_timer_.Set(lost_at_ns);
      break;
    }
    sendings_.pop_front();
    TakeForLost(sending.number);
    ++sample.lost;
  }
  if (sample.lost != 0 && state_ == State::kOpen) EnterRecovery();
}

void TcpFlow::TakeForLost(uint32_t number) {
  Segment& segment = At(number);
  if (!segment.lost) --in_flight_;
  if (segment.again_under_way) --in_flight_;
  segment.lost = true;
  segment.again_under_way = false;
  to_send_again_.insert(number);
}

void TcpFlow::EnterRecovery() {
  ++recoveries_;
  state_ = State::kRecovery;
  recover_until_ = next_number();
  undo_from_ = first_unacked_;
  may_undo_ = true;
  again_unconfirmed_ = again_unacked_;
  control_->OnRecovery(now_ns(), in_flight_);
}

void TcpFlow::Undo() {
  ++undone_;
  for (const uint32_t number : to_send_again_) {
    Segment& segment = At(number);
    segment.lost = false;
    segment.again_under_way = false;
    ++in_flight_;
    sendings_.push_front({number, segment.sendings, segment.sent_ns});
  }
  std::stable_sort(sendings_.begin(),
                   sendings_.begin() + static_cast<std::ptrdiff_t>(to_send_again_.size()),
                   [](const Sending& a, const Sending& b) { return a.sent_ns < b.sent_ns; });
  to_send_again_.clear();
  state_ = State::kOpen;
  may_undo_ = false;
  control_->OnUndo();
}

void TcpFlow::SetRetransmissionTimer() {
  if (segments_.empty() || stopped_) return retransmission_timer_.Cancel();
  DurationNs timeout_ns = kFirstTimeoutNs;
  if (rtt_ns_ != 0) timeout_ns = rtt_ns_ + std::max(4 * rtt_deviation_ns_, kLeastTimeoutNs);
  timeout_ns = std::min(timeout_ns << std::min(backoff_, 10u), kMostTimeoutNs);
  timer_is_tail_probe_ =
      state_ == State::kOpen && !tail_probe_sent_ && rtt_ns_ != 0 && sacked_ == 0;
  if (timer_is_tail_probe_) {
    DurationNs probe_ns = 2 * rtt_ns_ + kLeastTailProbeNs;
    if (in_flight_ == 1) probe_ns += kLeastTimeoutNs;
    timeout_ns = std::min(timeout_ns, probe_ns);
  }
  retransmission_timer_.Set(now_ns() + timeout_ns);
}

void TcpFlow::OnRetransmissionTimer() {
  if (segments_.empty()) return;
  if (timer_is_tail_probe_) {
    tail_probe_sent_ = true;
    if (next_number() < written_ && segments_.size() < window_segments_) {
      SendNext();
    } else {
      // Neither lost nor new: it only makes the other end say what it has.
      Segment& last = segments_.back();
      if (last.again_under_way) --in_flight_;
      last.again_under_way = false;
      ++sent_again_;
      Transmit(next_number() - 1);
    }
    return SetRetransmissionTimer();
  }
  ++timeouts_;
  if (state_ != State::kLoss || first_unacked_ >= recover_until_) {
    may_undo_ = true;
    undo_from_ = first_unacked_;
    again_unconfirmed_ = again_unacked_;
    control_->OnTimeout(now_ns(), in_flight_);
  }
  state_ = State::kLoss;
  recover_until_ = next_number();
  for (uint32_t number = first_unacked_; number < next_number(); ++number) {
    if (!At(number).sacked) TakeForLost(number);
  }
  ++backoff_;
  sendings_.clear();
  next_send_ns_ = 0;
  SendWhatMay();
  SetRetransmissionTimer();
}

// --- Sender: what leaves ---

void TcpFlow::SendWhatMay() {
  if (stopped_) return;
  window_limited_ = false;
  const double rate = control_->segments_per_s();
  while (true) {
    const bool more = !to_send_again_.empty() || next_number() < written_;
    if (!more) {
      source_limited_until_ = delivered_ + in_flight_;
      break;
    }
    if (to_send_again_.empty() && segments_.size() >= window_segments_) break;
    if (in_flight_ >= control_->window()) {
      window_limited_ = true;
      break;
    }
    if (rate == 0) {
      if (!SendNext()) break;
      continue;
    }
    if (now_ns() < next_send_ns_) {
      pacing_timer_.Set(next_send_ns_);
      break;
    }
    const double train = std::clamp(rate * kTrainSeconds, 1.0, kMostTrainSegments);
    int sent = 0;
    while (sent < static_cast<int>(train) && in_flight_ < control_->window() && SendNext()) ++sent;
    if (sent == 0) break;
    next_send_ns_ = std::max(next_send_ns_, now_ns()) +
                    static_cast<DurationNs>(sent * (static_cast<double>(kSecondNs) / rate));
  }
}

bool TcpFlow::SendNext() {
  if (!to_send_again_.empty()) {
    const uint32_t number = *to_send_again_.begin();
    to_send_again_.erase(to_send_again_.begin());
    ++sent_again_;
    ++again_unconfirmed_;
    Transmit(number);
    control_->OnSent(1, true);
    return true;
  }
  if (next_number() >= written_ || segments_.size() >= window_segments_) return false;
  if (segments_.empty()) {
    delivered_ns_ = first_sent_ns_ = now_ns();
    retransmission_timer_.Cancel();
  }
  segments_.emplace_back();
  Transmit(next_number() - 1);
  control_->OnSent(1, false);
  if (retransmission_timer_.due_ns() == kNever) SetRetransmissionTimer();
  return true;
}

void TcpFlow::Transmit(uint32_t number) {
  Segment& segment = At(number);
  if (segment.sendings > 0) segment.again_under_way = true;
  if (++segment.sendings == 2 && ++again_unacked_ == 1) first_again_ms_ = now_ms();
  segment.sent_ns = now_ns();
  segment.delivered = delivered_;
  segment.delivered_ns = delivered_ns_;
  segment.first_sent_ns = first_sent_ns_;
  segment.source_limited = delivered_ < source_limited_until_;
  ++in_flight_;
  sendings_.push_back({number, segment.sendings, segment.sent_ns});

  TcpHeader header;
  header.number = number;
  header.stamp_ms = now_ms();
  header.window_reduced = std::exchange(tell_reduced_, false);
  InnerPacket packet;
  packet.bytes = kSegmentBytes + kTcpOverheadBytes;
  packet.set_own(header);
  Send(settings_.from_end, packet, settings_.ecn);
}

std::string TcpFlow::Details() const {
  return absl::StrFormat("sent again %d, recoveries %d (%d undone), timeouts %d, rtt %.1f ms",
                         sent_again_, recoveries_, undone_, timeouts_,
                         static_cast<double>(rtt_ns_) / 1e6);
}

}  // namespace braid::sim
