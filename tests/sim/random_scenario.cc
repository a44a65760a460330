#include "sim/random_scenario.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <memory>
#include <vector>

#include "absl/strings/str_format.h"
#include "sim/datagram_flow.h"
#include "sim/simulated_bond.h"
#include "sim/tcp_flow.h"

namespace braid::sim {
namespace {

constexpr int kMostLinks = 6;
constexpr DurationNs kLeastActionNs = 300 * kMillisecondNs;
constexpr DurationNs kMostActionNs = 2'500 * kMillisecondNs;
constexpr DurationNs kCalmNs = 2'500 * kMillisecondNs;
constexpr DurationNs kCalmMeasuredNs = kSecondNs;
constexpr DurationNs kIdleNs = 4 * kSecondNs;
constexpr DurationNs kIdleMeasuredNs = kSecondNs;

// Of one end, in a second. Bulk over six paths wakes it up most often.
constexpr uint64_t kMostWakes = 20'000;
constexpr uint64_t kMostIdleWakes = 2'000;
constexpr uint64_t kMostWakesAtRest = 20;

constexpr double kCalmPingsPerS = 50;
constexpr double kLeastAnswered = 0.9;

double Ms(DurationNs ns) { return static_cast<double>(ns) / 1e6; }

class Scenario {
 public:
  Scenario(uint64_t seed, bool tell)
      : tell_(tell), random_(seed * 0x9E3779B97F4A7C15 + 1), fec_random_(seed) {
    SimulatedBond::Settings settings;
    settings.seed = seed;
    options_ = MakeOptions();
    settings.options = options_;
    constexpr std::array<size_t, 4> kSlots = {1024, 2048, 8192, 32768};
    settings.slots = kSlots[random_() % kSlots.size()];
    settings.most_late_ns = OneOf(random_, 3) ? 0 : Between(random_, 0, 500) * kMicrosecondNs;
    for (DurationNs& ahead_ns : settings.clock_ahead_ns) {
      ahead_ns = Between(random_, 0, 10'000'000) * kMillisecondNs;
    }
    const double cannot_seal = OneOf(random_, 12) ? 0.2 * Share(random_) : 0;
    settings.duplicated = OneOf(random_, 8) ? 0.1 * Share(random_) : 0;
    bond_ = std::make_unique<SimulatedBond>(settings);
    bond_->SetCannotSeal(cannot_seal);
    Tell(absl::StrFormat("%s, %d slots, late %.2f ms, not sealed %.2f, doubled %.2f",
                         Describe(options_), settings.slots, Ms(settings.most_late_ns), cannot_seal,
                         settings.duplicated));
    const uint64_t links = Between(random_, 1, kMostLinks);
    for (uint64_t i = 0; i < links; ++i) {
      const linkem::LinkSettings link = MakeLink();
      const BondPathOptions path = MakePathOptions();
      Tell(absl::StrFormat("link %d: %s%s", i, linkem::DescribeLink(link), Describe(path)));
      bond_->AddPath(link, path);
      usable_[i] = true;
    }
    const uint64_t flows = Between(random_, 1, 4);
    for (uint64_t i = 0; i < flows; ++i) AddFlow();
  }

  RandomOutcome Run() {
    Act();
    CheckWakes("while things happened");
    Calm();
    Rest();
    RandomOutcome outcome;
    outcome.violations = bond_->violations().text();
    outcome.digest = Digest();
    return outcome;
  }

 private:
  // --- What is made up ---

  BondOptions MakeOptions() {
    BondOptions options;
    constexpr std::array kModes = {BondingMode::kStripe, BondingMode::kStripe,
                                   BondingMode::kPreferred, BondingMode::kRedundant};
    options.mode = kModes[random_() % kModes.size()];
    options.pin_flows = OneOf(random_, 5);
    options.repair = !OneOf(random_, 3);
    if (OneOf(fec_random_, 3)) options.fec = FecMode::kAuto;
    if (OneOf(fec_random_, 6)) {
      options.fec = FecMode::kRatio;
      options.fec_ratio = 0.01 + 0.99 * Share(fec_random_);
    }
    options.reorder_max_ns = Between(random_, 20, 300) * kMillisecondNs;
    return options;
  }

  BondPathOptions MakePathOptions() {
    BondPathOptions options;
    if (OneOf(random_, 6)) options.weight = 0.05 + 2 * Share(random_);
    if (OneOf(random_, 10)) options.fixed_bytes_per_s = Between(random_, 50'000, 5'000'000);
    options.standby = OneOf(random_, 8);
    return options;
  }

  // Evenly distributed by magnitude.
  double Magnitude(double least, double most) {
    return least * std::pow(most / least, Share(random_));
  }

  linkem::LinkSettings MakeLink() {
    linkem::LinkSettings link;
    link.rate_bits_per_s = static_cast<uint64_t>(Magnitude(3e5, 6e7));
    link.delay_ns = static_cast<DurationNs>(Magnitude(1e5, 1.5e8));
    if (OneOf(random_, 3)) link.loss = Magnitude(0.001, 0.2);
    if (OneOf(random_, 10)) {
      link.burst_loss = Magnitude(0.001, 0.1);
      link.burst_frames = Magnitude(2, 30);
    }
    if (OneOf(random_, 4)) {
      link.jitter_ns = static_cast<DurationNs>(
          std::min(Magnitude(1e5, 2e7), static_cast<double>(link.delay_ns)));
    }
    if (OneOf(random_, 6)) {
      link.reorder = Magnitude(0.001, 0.1);
      link.reorder_ns = static_cast<DurationNs>(Magnitude(1e5, 2e7));
    }
    link.queue_bytes = static_cast<uint64_t>(Magnitude(8'000, 1'000'000));
    return link;
  }

  void AddFlow() {
    const auto from = static_cast<int>(random_() % 2);
    switch (random_() % 6) {
      case 0:
      case 1: {
        TcpSettings tcp;
        tcp.from_end = from;
        if (OneOf(random_, 2)) tcp.congestion_control = "bbr";
        tcp.ecn = OneOf(random_, 4);
        tcp.window_bytes = static_cast<uint64_t>(Magnitude(64e3, 4e6));
        Tell(absl::StrFormat("%d: %s", from, tcp.congestion_control));
        bond_->AddFlow<TcpFlow>(tcp);
        return;
      }
      case 2:
      case 3: {
        UdpSettings udp;
        udp.from_end = from;
        udp.bits_per_s = static_cast<uint64_t>(Magnitude(1e5, 2e7));
        udp.payload_bytes = static_cast<uint32_t>(Between(random_, 20, 1392));
        udp.poisson = OneOf(random_, 2);
        udp.traffic_class = static_cast<TrafficClass>(random_() % 3);
        if (OneOf(random_, 3)) {
          udp.on_ns = Between(random_, 10, 500) * kMillisecondNs;
          udp.off_ns = Between(random_, 10, 1500) * kMillisecondNs;
        }
        Tell(absl::StrFormat("%d: udp %.1f Mbit/s of %d bytes", from,
                             static_cast<double>(udp.bits_per_s) / 1e6, udp.payload_bytes));
        bond_->AddFlow<UdpFlow>(udp);
        return;
      }
      case 4: {
        PingSettings ping;
        ping.from_end = from;
        ping.per_s = Magnitude(1, 200);
        ping.traffic_class = OneOf(random_, 2) ? TrafficClass::kInteractive : TrafficClass::kBulk;
        Tell(absl::StrFormat("%d: ping %.0f a second", from, ping.per_s));
        bond_->AddFlow<PingFlow>(ping);
        return;
      }
      default: {
        // Pages of some segments, one after another.
        TcpSettings tcp;
        tcp.from_end = from;
        tcp.unlimited = false;
        Tell(absl::StrFormat("%d: pages", from));
        TcpFlow& flow = bond_->AddFlow<TcpFlow>(tcp);
        pages_.push_back(&flow);
        return;
      }
    }
  }

  // --- What happens ---

  void Act() {
    DurationNs left_ns = Between(random_, kLeastActionNs, kMostActionNs);
    while (left_ns != 0) {
      const DurationNs step_ns = std::min(left_ns, static_cast<DurationNs>(Magnitude(1e6, 8e8)));
      bond_->Run(step_ns);
      left_ns -= step_ns;
      for (TcpFlow* flow : pages_) {
        if (flow->done()) flow->Write(static_cast<uint32_t>(Between(random_, 1, 60)));
      }
      if (left_ns != 0) Change();
    }
  }

  void Change() {
    const auto path = static_cast<uint8_t>(random_() % bond_->paths());
    switch (random_() % 12) {
      case 0:
      case 1: {
        const linkem::LinkSettings link = MakeLink();
        if (OneOf(random_, 2)) {
          Tell(absl::StrFormat("link %d becomes %s", path, linkem::DescribeLink(link)));
          return bond_->ChangeLink(path, link);
        }
        const auto from = static_cast<int>(random_() % 2);
        Tell(absl::StrFormat("link %d from %d becomes %s", path, from, linkem::DescribeLink(link)));
        return bond_->ChangeLink(path, from, link);
      }
      case 2:
      case 3:
      case 4: {
        const bool down = !bond_->link_settings(path, 0).down;
        Tell(absl::StrFormat("link %d %s", path, down ? "down" : "up"));
        return bond_->SetDown(path, down);
      }
      case 5:
      case 6:
        usable_[path] = !usable_[path];
        Tell(absl::StrFormat("path %d %s", path, usable_[path] ? "added" : "removed"));
        if (usable_[path] && OneOf(random_, 2)) {
          Tell("it is another one");
          bond_->ForgetPath(path);
        }
        return bond_->SetPath(path, usable_[path], MakePathOptions());
      case 7:
        options_ = MakeOptions();
        Tell(Describe(options_));
        return bond_->SetOptions(options_);
      case 8:
        if (bond_->paths() < kMostLinks) {
          usable_[bond_->paths()] = true;
          const linkem::LinkSettings link = MakeLink();
          Tell(absl::StrFormat("new link %s", linkem::DescribeLink(link)));
          return bond_->AddPath(link, MakePathOptions());
        }
        return;
      case 9: {
        if (!OneOf(random_, 3)) return;
        const auto end = static_cast<int>(random_() % 2);
        Tell(absl::StrFormat("end %d is restarted", end));
        restarted_ = true;
        return bond_->Restart(end);
      }
      default:
        AddFlow();
    }
  }

  // All links work well, and there is little to do: it must work. What flows there were has ended,
  // but for what is under way.
  void Calm() {
    bond_->StopFlows();
    bond_->SetCannotSeal(0);
    Tell("calm");
    for (uint8_t path = 0; path < bond_->paths(); ++path) {
      bond_->ChangeLink(path, {.rate_bits_per_s = 20'000'000,
                               .delay_ns = Between(random_, 1, 30) * kMillisecondNs});
      bond_->SetPath(path, true);
    }
    PingSettings ping;
    ping.per_s = kCalmPingsPerS;
    PingFlow& pings = bond_->AddFlow<PingFlow>(ping);
    TcpSettings tcp;
    tcp.from_end = static_cast<int>(random_() % 2);
    TcpFlow& bulk = bond_->AddFlow<TcpFlow>(tcp);
    bond_->Run(kCalmNs - kCalmMeasuredNs);
    const uint64_t asked_before = pings.asked();
    const uint64_t answered_before = pings.answered();
    const BondEnd& sending = bond_->end(tcp.from_end);
    const bool waited_before = sending.sender().waiting_packets() != 0;
    const uint64_t bulk_before = sending.counters().bulk_sendings;
    bond_->Run(kCalmMeasuredNs);
    CheckWakes("in the calm");
    const auto asked = static_cast<double>(pings.asked() - asked_before);
    const auto answered = static_cast<double>(pings.answered() - answered_before);
    if (answered < kLeastAnswered * asked - 5) {
      Violation(absl::StrFormat("in the calm %.0f of %.0f pings are answered", answered, asked));
    }
    const bool waits = sending.sender().waiting_packets() != 0;
    if (waited_before && waits && sending.counters().bulk_sendings == bulk_before) {
      Violation("in the calm the queue stands still: " + bulk.Details() + DescribeEnds());
    }
  }

  void Rest() {
    bond_->StopFlows();
    Tell("silence");
    bond_->Run(kIdleNs - kIdleMeasuredNs);
    std::array<uint64_t, 2> wakes_before;
    for (int end = 0; end < 2; ++end) {
      wakes_before[static_cast<size_t>(end)] = bond_->end(end).counters().wakes;
    }
    bond_->Run(kIdleMeasuredNs);
    for (int end = 0; end < 2; ++end) {
      const BondEnd& one = bond_->end(end);
      const uint64_t wakes = one.counters().wakes - wakes_before[static_cast<size_t>(end)];
      if (wakes > kMostWakesAtRest) {
        Violation(absl::StrFormat("end %d wakes up %d times in a second of silence", end, wakes));
      }
      if (one.memory().slab.used() != 0) {
        Violation(absl::StrFormat("end %d: %d slots in use after %.0f s of silence", end,
                                  one.memory().slab.used(), kIdleNs / 1e9));
      }
      CheckCounters(end, wakes == 0);
    }
    bond_->CheckNothingIsLeft();
  }

  // --- What is checked ---

  void CheckWakes(const char* when) {
    const double seconds = static_cast<double>(bond_->now_ns() - checked_ns_) / 1e9;
    checked_ns_ = bond_->now_ns();
    for (int end = 0; end < 2; ++end) {
      const BondEnd::Counters& counters = bond_->end(end).counters();
      BondEnd::Counters& before = checked_[static_cast<size_t>(end)];
      const double wakes = static_cast<double>(counters.wakes - before.wakes) / seconds;
      const double idle = static_cast<double>(counters.idle_wakes - before.idle_wakes) / seconds;
      before = counters;
      if (wakes <= kMostWakes && idle <= kMostIdleWakes) continue;
      Violation(absl::StrFormat("%s end %d woke up %.0f times a second, %.0f for nothing", when,
                                end, wakes, idle));
    }
  }

  void CheckCounters(int end_number, bool at_rest) {
    const BondEnd& end = bond_->end(end_number);
    const BondEnd::Counters& counters = end.counters();
    // What had its number but never left may have come by its parity.
    const BondEnd::Counters& others = bond_->end(1 - end_number).counters();
    const uint64_t most = counters.recovered == 0 ? others.first_sendings : others.enqueued;
    if (counters.delivered > most) {
      Violation("more is delivered than was sent");
    }
    if (!restarted_) {
      const BondSender::Counters& sent = end.sender().counters();
      const FairQueue::Counters& queue = end.sender().queue().counters();
      const uint64_t dropped = queue.dropped + queue.overflowed + sent.gone_stale;
      const uint64_t left = counters.first_sendings + counters.packets_not_sealed + dropped;
      if (counters.enqueued - counters.refused != left) {
        Violation(absl::StrFormat("end %d: of %d packets %d are accounted for", end_number,
                                  counters.enqueued - counters.refused, left));
      }
      if (sent.parity != counters.parity_sendings ||
          sent.parity > end.sender().fec().counters().made) {
        Violation(absl::StrFormat("end %d: %d parity packets left, %d counted", end_number,
                                  counters.parity_sendings, sent.parity));
      }
      if (end.receiver().counters().recovered != counters.recovered) {
        Violation(absl::StrFormat("end %d: %d packets were recovered, %d counted", end_number,
                                  counters.recovered, end.receiver().counters().recovered));
      }
      if (sent.slab_full != counters.refused) {
        Violation(absl::StrFormat("end %d: %d packets refused, %d counted", end_number,
                                  counters.refused, sent.slab_full));
      }
      const uint64_t again =
          counters.sent_again + counters.not_sealed - counters.packets_not_sealed;
      if (sent.copies + sent.repairs < counters.sent_again || sent.copies + sent.repairs > again) {
        Violation(absl::StrFormat("end %d: %d packets left again, %d copies and %d repairs counted",
                                  end_number, counters.sent_again, sent.copies, sent.repairs));
      }
      const BondReceiver::Counters& received = end.receiver().counters();
      if (received.late > counters.overtaken) {
        Violation(absl::StrFormat("end %d: %d packets were overtaken, %d counted as late",
                                  end_number, counters.overtaken, received.late));
      }
    }
    for (uint8_t path = 0; path < bond_->paths(); ++path) {
      const linkem::LinkCounters& link = bond_->link_counters(path, end_number);
      const uint64_t out = link.frames_delivered + link.frames_lost + link.frames_queue_full;
      if (link.frames_in < out || (at_rest && link.frames_in != out)) {
        Violation(absl::StrFormat("link %d lost count", path));
      }
    }
  }

  uint64_t Digest() const {
    uint64_t digest = bond_->loop().events();
    const auto mix = [&](uint64_t value) { digest = (digest ^ value) * 0x100000001B3; };
    for (const auto& flow : bond_->flows()) {
      for (int end = 0; end < 2; ++end) {
        mix(flow->meter(end).delivered());
        mix(flow->meter(end).out_of_order());
        mix(flow->meter(end).goodput_bytes());
      }
    }
    for (int end = 0; end < 2; ++end) {
      mix(bond_->end(end).counters().departures);
      mix(bond_->end(end).counters().wakes);
    }
    return digest;
  }

  // --- What is told ---

  std::string DescribeEnds() const {
    std::string text;
    for (int end = 0; end < 2; ++end) {
      const BondSender& sender = bond_->end(end).sender();
      absl::StrAppendFormat(&text, "\n  end %d: %d packets wait", end, sender.waiting_packets());
      for (uint8_t path = 0; path < bond_->paths(); ++path) {
        const RateControl& rate = sender.rate(path);
        absl::StrAppendFormat(
            &text,
            "\n    path %d: state %d, %s, phase %d, %.2f Mbit/s, paced at %.2f, loss %.2f, queue "
            "%.1f ms",
            path, static_cast<int>(sender.state(path)), sender.carries(path) ? "carries" : "spare",
            static_cast<int>(rate.phase()), static_cast<double>(rate.bytes_per_s()) * 8 / 1e6,
            static_cast<double>(rate.pacing_bytes_per_s()) * 8 / 1e6, rate.loss(),
            Ms(rate.queue_ns()));
      }
    }
    return text;
  }

  static std::string Describe(const BondOptions& options) {
    return absl::StrFormat(
        "%s%s%s%s, at most %.0f ms", NameOf(options.mode), options.pin_flows ? ", pinned" : "",
        options.repair ? ", repair" : "",
        options.fec == FecMode::kOff
            ? ""
            : (options.fec == FecMode::kAuto ? std::string(", parity")
                                             : absl::StrFormat(", parity %.2f", options.fec_ratio)),
        Ms(options.reorder_max_ns));
  }

  static std::string Describe(const BondPathOptions& options) {
    return absl::StrFormat(
        "%s%s%s", options.weight == 1 ? "" : absl::StrFormat(", weight %.2f", options.weight),
        options.fixed_bytes_per_s == 0
            ? ""
            : absl::StrFormat(", fixed %.1f Mbit/s",
                              static_cast<double>(options.fixed_bytes_per_s) * 8 / 1e6),
        options.standby ? ", standby" : "");
  }

  void Tell(const std::string& what) {
    const TimeNs now_ns = bond_ ? bond_->now_ns() : EventLoop::kStartNs;
    if (!tell_) return;
    std::printf("%9.6f s  %s\n", static_cast<double>(now_ns - EventLoop::kStartNs) / 1e9,
                what.c_str());
    std::fflush(stdout);
  }

  void Violation(const std::string& what) { bond_->violations().Note(bond_->now_ns(), what); }

  const bool tell_;
  Random random_;
  Random fec_random_;  // its own, so that a scenario is the same with parity and without
  BondOptions options_;
  std::unique_ptr<SimulatedBond> bond_;
  std::array<bool, kMaxPaths> usable_{};
  std::vector<TcpFlow*> pages_;
  bool restarted_ = false;
  TimeNs checked_ns_ = EventLoop::kStartNs;
  std::array<BondEnd::Counters, 2> checked_;  // then
};

}  // namespace

RandomOutcome RunRandomScenario(uint64_t seed, bool tell) { return Scenario(seed, tell).Run(); }

}  // namespace braid::sim
