// sim: what traffic gets out of a simulated bond, at a glance.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "absl/strings/str_format.h"
#include "sim/datagram_flow.h"
#include "sim/link_text.h"
#include "sim/simulated_bond.h"
#include "sim/tcp_flow.h"

namespace braid::sim {
namespace {

constexpr int kUsageError = 2;

constexpr char kFooter[] =
    R"(Links are Mbit/s / ms one way / % lost / kB of queue / ms of jitter / % reordered, both ways
alike; what is left out is 0, the queue 256. Changes:

  --at '5 1 down'  --at '8 1 up'  --at '3 0 rate 5mbit loss 2%'  --at '4 mode preferred'

are of a link (the first is 0), with the keys of linkem, or of the bond's mode.)";

struct Change {
  double at_s = 0;
  std::string subject;  // a link's number, or "mode"
  std::string what;
};

struct Arguments {
  std::string links = "50/10/0/256,20/30/0/256";
  std::vector<std::string> standby;
  std::string tcp = "cubic";
  int flows = 1;
  bool reverse = false;
  bool both = false;
  bool ecn = false;
  double window_mb = 4;
  double udp_mbps = 0;
  double ping_per_s = 0;
  double seconds = 25;
  double measured_s = 20;
  std::string mode = "stripe";
  std::string repair = "on";
  std::string fec = "off";
  bool pin = false;
  double reorder_max_ms = 200;
  double late_ms = 0.5;
  uint64_t seed = 1;
  int seeds = 1;
  bool trace = false;
  bool bare = false;
  std::vector<std::string> changes;
};

BondingMode ModeOf(const std::string& name) {
  if (name == "preferred") return BondingMode::kPreferred;
  return name == "redundant" ? BondingMode::kRedundant : BondingMode::kStripe;
}

FecMode FecModeOf(const std::string& text) {
  if (text == "off") return FecMode::kOff;
  return text == "auto" ? FecMode::kAuto : FecMode::kRatio;
}

// All of these are literals, so they end with a zero.
const char* Name(RateControl::Phase phase) {
  return RateControl::kPhaseNames[static_cast<size_t>(phase)].data();
}

const char* Name(BondSender::PathState state) {
  return BondSender::kPathStateNames[static_cast<size_t>(state)].data();
}

const char* Name(Together::Order order) {
  switch (order) {
    case Together::Order::kByArrival:
      return "by arrival";
    case Together::Order::kQuickestOnly:
      return "quickest only";
    case Together::Order::kQuickestFirst:
      return "quickest first";
    case Together::Order::kSlowestFirst:
      return "slowest first";
  }
  return "?";
}

double Mbps(double bytes, double seconds) { return bytes * 8 / seconds / 1e6; }
double Ms(DurationNs ns) { return static_cast<double>(ns) / 1e6; }

class Simulation {
 public:
  explicit Simulation(const Arguments& arguments)
      : arguments_(arguments), from_(arguments.reverse) {}

  absl::Status SetUp(uint64_t seed) {
    SimulatedBond::Settings settings;
    settings.seed = seed;
    settings.most_late_ns = static_cast<DurationNs>(arguments_.late_ms * 1e6);
    options_.mode = ModeOf(arguments_.mode);
    options_.repair = arguments_.repair == "on";
    options_.fec = FecModeOf(arguments_.fec);
    options_.fec_ratio = options_.fec == FecMode::kRatio ? std::stod(arguments_.fec) : 0;
    options_.pin_flows = arguments_.pin;
    options_.reorder_max_ns = static_cast<DurationNs>(arguments_.reorder_max_ms * 1e6);
    settings.options = options_;
    settings.bare = arguments_.bare;
    bond_ = std::make_unique<SimulatedBond>(settings);
    const auto links = ParseLinks(arguments_.links);
    if (!links.ok()) return links.status();
    for (size_t i = 0; i < links->size(); ++i) {
      BondPathOptions path;
      path.standby =
          std::count(arguments_.standby.begin(), arguments_.standby.end(), std::to_string(i)) != 0;
      bond_->AddPath((*links)[i], path);
    }
    for (const std::string& text : arguments_.changes) {
      if (const absl::Status status = AddChange(text); !status.ok()) return status;
    }
    AddFlows();
    return absl::OkStatus();
  }

  void Run() {
    const TimeNs begin_ns = bond_->now_ns();
    const auto seconds_left = [&] {
      return arguments_.seconds -
             static_cast<double>(bond_->now_ns() - begin_ns) / static_cast<double>(kSecondNs);
    };
    while (seconds_left() > 1e-9) {
      if (bond_->now_ns() >= MeasureFrom() && path_bytes_before_.empty()) NotePathBytes();
      Note before = Take();
      bond_->Run(static_cast<DurationNs>(std::min(seconds_left(), 1.0) * 1e9));
      if (arguments_.trace) Trace(before);
    }
  }

  void Print() {
    const TimeNs until_ns = bond_->now_ns();
    const double measured_s = static_cast<double>(until_ns - MeasureFrom()) / 1e9;
    double sum = 0;
    std::printf("%-10s %8s %8s %9s %8s %8s %8s  %s\n", "flow", "Mbit/s", "lost", "reordered",
                "50 % ms", "99 % ms", "most ms", "");
    for (const auto& flow : bond_->flows()) {
      const int from = FromOf(*flow);
      const DirectionMeter& meter = flow->meter(from);
      const double rate = meter.goodput_bits_per_s(MeasureFrom(), until_ns) / 1e6;
      sum += rate;
      std::printf("%-10s %8.1f %7.2f%% %9llu %8.1f %8.1f %8.1f  %s\n", flow->name().c_str(), rate,
                  100 * meter.lost_share(), static_cast<unsigned long long>(meter.out_of_order()),
                  meter.latency_ms(0.5), meter.latency_ms(0.99), meter.latency_ms(1),
                  flow->Details().c_str());
    }
    if (bond_->flows().size() > 1) std::printf("%-10s %8.1f\n", "all", sum);

    std::printf("\n%-10s %8s %8s %8s %8s %9s %9s\n", "link", "Mbit/s", "used", "lost", "overflow",
                "queue ms", "state");
    for (uint8_t path = 0; path < bond_->paths(); ++path) {
      const auto& link = bond_->link_settings(path, from_);
      const auto& counters = bond_->link_counters(path, from_);
      const BondSender& sender = bond_->end(from_).sender();
      const uint64_t before = path < path_bytes_before_.size() ? path_bytes_before_[path] : 0;
      const double used = Mbps(static_cast<double>(counters.bytes_delivered - before), measured_s);
      const double rate = static_cast<double>(link.rate_bits_per_s) / 1e6;
      std::printf("%-10d %8.1f %7.1f%% %8llu %8llu %9.1f %9s\n", path, used,
                  rate > 0 ? 100 * used / rate : 0,
                  static_cast<unsigned long long>(counters.frames_lost),
                  static_cast<unsigned long long>(counters.frames_queue_full),
                  Ms(sender.rate(path).queue_ns()), Name(sender.state(path)));
    }
    const BondSender::Counters& sent = bond_->end(from_).sender().counters();
    const BondReceiver::Counters& received = bond_->end(1 - from_).receiver().counters();
    const FairQueue::Counters& queue = bond_->end(from_).sender().queue().counters();
    std::printf(
        "\nrepairs %llu (%llu too late), copies %llu, express %llu; queue: dropped %llu, marked "
        "%llu, overflowed %llu\n"
        "held %llu (most %.1f ms), given up %llu, late %llu, duplicates %llu, lost %llu\n",
        static_cast<unsigned long long>(sent.repairs),
        static_cast<unsigned long long>(sent.repairs_too_late),
        static_cast<unsigned long long>(sent.copies), static_cast<unsigned long long>(sent.express),
        static_cast<unsigned long long>(queue.dropped),
        static_cast<unsigned long long>(queue.marked),
        static_cast<unsigned long long>(queue.overflowed),
        static_cast<unsigned long long>(received.held),
        Ms(bond_->end(1 - from_).counters().longest_hold_ns),
        static_cast<unsigned long long>(received.given_up),
        static_cast<unsigned long long>(received.late),
        static_cast<unsigned long long>(received.duplicates),
        static_cast<unsigned long long>(received.lost));
    const FecDecoder::Counters& fec = bond_->end(1 - from_).receiver().fec().counters();
    std::printf("parity %llu (%llu came), recovered %llu, unrecoverable %llu\n",
                static_cast<unsigned long long>(sent.parity),
                static_cast<unsigned long long>(fec.parity),
                static_cast<unsigned long long>(bond_->end(1 - from_).counters().recovered),
                static_cast<unsigned long long>(fec.unrecoverable));
    const BondEnd::Counters& end = bond_->end(from_).counters();
    std::printf("wakes %.0f a second (%.0f for nothing), control %.2f Mbit/s\n",
                static_cast<double>(end.wakes) / arguments_.seconds,
                static_cast<double>(end.idle_wakes) / arguments_.seconds,
                Mbps(static_cast<double>(end.control_bytes), arguments_.seconds));
  }

  // Of all flows.
  double goodput_mbps() const {
    double sum = 0;
    for (const auto& flow : bond_->flows()) {
      sum += flow->meter(FromOf(*flow)).goodput_bits_per_s(MeasureFrom(), bond_->now_ns());
    }
    return sum / 1e6;
  }

  bool PrintViolations() {
    if (bond_->violations().empty()) return false;
    std::printf("\nMUST NOT HAPPEN:\n%s", bond_->violations().text().c_str());
    return true;
  }

 private:
  struct Note {
    uint64_t enqueued_bytes;
    uint64_t codel_drops;
    std::vector<uint64_t> goodput_bytes;
    std::vector<uint64_t> link_bytes;
  };

  absl::Status AddChange(const std::string& text) {
    std::istringstream words(text);
    double at_s = 0;
    std::string subject, what;
    if (!(words >> at_s >> subject) || !std::getline(words >> std::ws, what)) {
      return absl::InvalidArgumentError(
          absl::StrFormat("--at \"%s\": write '5 1 down' or '4 mode preferred'", text));
    }
    std::function<void()> apply;
    if (subject == "mode") {
      apply = [this, what] {
        options_.mode = ModeOf(what);
        bond_->SetOptions(options_);
      };
    } else {
      const int number = std::atoi(subject.c_str());
      if (number < 0 || number >= bond_->paths()) {
        return absl::InvalidArgumentError(
            absl::StrFormat("--at \"%s\": there is no link %s", text, subject));
      }
      const auto path = static_cast<uint8_t>(number);
      linkem::LinkSettings trial;
      const bool up_or_down = what == "up" || what == "down";
      if (const absl::Status status = up_or_down ? absl::OkStatus() : linkem::SetLink(trial, what);
          !status.ok()) {
        return status;
      }
      apply = [this, path, what] {
        if (what == "up" || what == "down") return bond_->SetDown(path, what == "down");
        linkem::LinkSettings link = bond_->link_settings(path, from_);
        if (linkem::SetLink(link, what).ok()) bond_->ChangeLink(path, link);
      };
    }
    changes_.push_back(std::make_unique<Timer>(bond_->loop(), std::move(apply)));
    changes_.back()->Set(bond_->now_ns() + static_cast<DurationNs>(at_s * 1e9));
    return absl::OkStatus();
  }

  void AddFlows() {
    TcpSettings tcp;
    tcp.congestion_control = arguments_.tcp;
    tcp.window_bytes = static_cast<uint64_t>(arguments_.window_mb * 1e6);
    tcp.ecn = arguments_.ecn;
    for (int i = 0; arguments_.tcp != "none" && i < arguments_.flows; ++i) {
      tcp.from_end = from_;
      AddFlow(bond_->AddFlow<TcpFlow>(tcp), from_);
      if (!arguments_.both) continue;
      tcp.from_end = 1 - from_;
      AddFlow(bond_->AddFlow<TcpFlow>(tcp), 1 - from_);
    }
    if (arguments_.udp_mbps > 0) {
      UdpSettings udp;
      udp.from_end = from_;
      udp.bits_per_s = static_cast<uint64_t>(arguments_.udp_mbps * 1e6);
      AddFlow(bond_->AddFlow<UdpFlow>(udp), from_);
    }
    if (arguments_.ping_per_s > 0) {
      PingSettings ping;
      ping.from_end = from_;
      ping.per_s = arguments_.ping_per_s;
      AddFlow(bond_->AddFlow<PingFlow>(ping), from_);
    }
  }

  void AddFlow(const Flow&, int from) { flow_from_.push_back(from); }
  int FromOf(const Flow& flow) const {
    for (size_t i = 0; i < flow_from_.size(); ++i) {
      if (bond_->flows()[i].get() == &flow) return flow_from_[i];
    }
    return from_;
  }

  TimeNs MeasureFrom() const {
    const double from_s = std::max(arguments_.seconds - arguments_.measured_s, 0.0);
    return EventLoop::kStartNs + static_cast<DurationNs>(from_s * 1e9);
  }

  void NotePathBytes() {
    for (uint8_t path = 0; path < bond_->paths(); ++path) {
      path_bytes_before_.push_back(bond_->link_counters(path, from_).bytes_delivered);
    }
  }

  Note Take() const {
    Note note{bond_->end(from_).enqueued_bytes(),
              bond_->end(from_).sender().queue().counters().dropped,
              {},
              {}};
    for (const auto& flow : bond_->flows()) {
      note.goodput_bytes.push_back(flow->meter(FromOf(*flow)).goodput_bytes());
    }
    for (uint8_t path = 0; path < bond_->paths(); ++path) {
      note.link_bytes.push_back(bond_->link_counters(path, from_).bytes_delivered);
    }
    return note;
  }

  void Trace(const Note& before) const {
    const Note now = Take();
    const BondSender& sender = bond_->end(from_).sender();
    double goodput = 0;
    for (size_t i = 0; i < now.goodput_bytes.size(); ++i) {
      goodput += Mbps(static_cast<double>(now.goodput_bytes[i] - before.goodput_bytes[i]), 1);
    }
    std::printf(
        "%3.0f s  goodput %6.1f  demand %6.1f Mbit/s  backlog %5zu kB  codel %3llu  held %4zu",
        static_cast<double>(bond_->now_ns() - EventLoop::kStartNs) / 1e9, goodput,
        Mbps(static_cast<double>(now.enqueued_bytes - before.enqueued_bytes), 1),
        sender.waiting_bytes() / 1000,
        static_cast<unsigned long long>(now.codel_drops - before.codel_drops),
        bond_->end(1 - from_).receiver().held_now());
    for (const auto& flow : bond_->flows()) {
      if (const auto* tcp = dynamic_cast<const TcpFlow*>(flow.get()); tcp != nullptr) {
        std::printf("  cwnd %5u %-10s rtt %5.1f", tcp->window(), tcp->phase().c_str(),
                    Ms(tcp->rtt_ns()));
        if (bond_->flows().size() > 2) break;
      }
    }
    std::printf("  %s\n", Name(sender.order(bond_->end(from_).local_ns())));
    for (uint8_t path = 0; path < bond_->paths(); ++path) {
      const RateControl& rate = sender.rate(path);
      const auto& counters = bond_->link_counters(path, from_);
      std::printf(
          "       %d %-7s (back %-7s) %-7s%c sent %6.1f  pace %6.1f  rate %6.1f Mbit/s  queue "
          "%5.1f "
          "(link %5.1f) ms  loss %5.2f%%  rtt %5.1f ms\n",
          path, Name(sender.state(path)), Name(bond_->end(1 - from_).sender().state(path)),
          Name(rate.phase()), sender.carries(path) ? '*' : ' ',
          Mbps(static_cast<double>(now.link_bytes[path] - before.link_bytes[path]), 1),
          Mbps(static_cast<double>(rate.pacing_bytes_per_s()), 1),
          Mbps(static_cast<double>(rate.bytes_per_s()), 1), Ms(rate.queue_ns()),
          1000 * static_cast<double>(counters.queue_bytes) * 8 /
              std::max(static_cast<double>(bond_->link_settings(path, from_).rate_bits_per_s), 1.0),
          100 * rate.loss(), Ms(rate.rtt_ns()));
    }
    std::fflush(stdout);
  }

  const Arguments arguments_;
  const int from_;
  BondOptions options_;
  std::unique_ptr<SimulatedBond> bond_;
  std::vector<std::unique_ptr<Timer>> changes_;
  std::vector<int> flow_from_;
  std::vector<uint64_t> path_bytes_before_;
};

int RunAll(const Arguments& arguments) {
  bool violated = false;
  std::vector<double> goodputs;
  const auto started = std::chrono::steady_clock::now();
  for (int i = 0; i < arguments.seeds; ++i) {
    const uint64_t seed = arguments.seed + static_cast<uint64_t>(i);
    Simulation simulation(arguments);
    if (const absl::Status status = simulation.SetUp(seed); !status.ok()) {
      std::fprintf(stderr, "sim: %s\n", std::string(status.message()).c_str());
      return kUsageError;
    }
    simulation.Run();
    goodputs.push_back(simulation.goodput_mbps());
    if (arguments.seeds == 1) {
      simulation.Print();
    } else {
      std::printf("seed %-6llu %8.1f Mbit/s\n", static_cast<unsigned long long>(seed),
                  goodputs.back());
    }
    violated |= simulation.PrintViolations();
    std::fflush(stdout);
  }
  if (goodputs.size() > 1) {
    std::sort(goodputs.begin(), goodputs.end());
    std::printf("%zu seeds: %.1f … %.1f … %.1f Mbit/s\n", goodputs.size(), goodputs.front(),
                goodputs[goodputs.size() / 2], goodputs.back());
  }
  std::printf("took %.1f s\n",
              std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count());
  return violated ? 1 : 0;
}

}  // namespace
}  // namespace braid::sim

int main(int argc, char** argv) {
  braid::sim::Arguments arguments;
  CLI::App app("What traffic gets out of a simulated bond. Virtual time: a seed replays exactly.",
               "sim");
  app.footer(braid::sim::kFooter);
  app.option_defaults()->always_capture_default();
  app.add_option("--links", arguments.links, "the links, with commas between");
  app.add_option("--standby", arguments.standby, "links that are standby")->delimiter(',');
  app.add_option("--tcp", arguments.tcp, "cubic, bbr or none")
      ->check(CLI::IsMember({"cubic", "bbr", "none"}));
  app.add_option("--flows", arguments.flows, "of TCP");
  app.add_option("--window", arguments.window_mb, "MB that a TCP receiver has room for");
  app.add_flag("--ecn", arguments.ecn, "TCP understands marks of congestion");
  app.add_flag("--reverse", arguments.reverse, "from right to left");
  app.add_flag("--both", arguments.both, "TCP in both directions");
  app.add_option("--udp", arguments.udp_mbps, "Mbit/s of constant UDP beside it");
  app.add_option("--ping", arguments.ping_per_s, "pings a second beside it");
  app.add_option("--seconds", arguments.seconds, "of virtual time");
  app.add_option("--measured", arguments.measured_s, "the last of them are measured");
  app.add_option("--mode", arguments.mode, "stripe, preferred or redundant")
      ->check(CLI::IsMember({"stripe", "preferred", "redundant"}));
  app.add_option("--repair", arguments.repair, "on or off")->check(CLI::IsMember({"on", "off"}));
  app.add_option("--fec", arguments.fec, "off, auto, or parity for each packet from 0.01 to 1")
      ->check(CLI::IsMember({"off", "auto"}) | CLI::Range(0.01, 1.0));
  app.add_flag("--pin", arguments.pin, "each flow keeps to one path");
  app.add_option("--reorder-max", arguments.reorder_max_ms, "ms that packets are held at most");
  app.add_option("--late", arguments.late_ms, "ms that threads wake up late at most");
  app.add_option("--seed", arguments.seed, "of all chance");
  app.add_option("--seeds", arguments.seeds, "so many, one after another; a line for each");
  app.add_option("--at", arguments.changes, "a change: see below");
  app.add_flag("--bare", arguments.bare, "no bond: straight over the first link");
  app.add_flag("--trace", arguments.trace, "how it goes, each second");
  CLI11_PARSE(app, argc, argv);
  return braid::sim::RunAll(arguments);
}
