// `braid bench peer`: rate, loss and latency through a tunnel that runs, to one of its peers.
#include <string.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "cli/bench.h"
#include "cli/outcome.h"
#include "slowpath/control_client.h"
#include "slowpath/control_protocol.h"
#include "slowpath/measure_client.h"

namespace braid {
namespace {

// Within which the local daemon notices that the other one has been stopped.
constexpr DurationNs kNoticedWithinNs = kSecondNs;
constexpr std::chrono::milliseconds kAskEvery{50};

struct PeerArguments {
  std::string name;
  std::string socket{kDefaultControlSocket};
  std::string address;
  int port = 0;  // 0: as here
  int seconds = 5;
  int flows = 1;
  double rate_mbps = 0;  // 0: a tenth of what TCP reached
  size_t datagram_bytes = 1200;
  bool json = false;
};

// What the local daemon knows of the peer.
struct KnownPeer {
  std::string public_key;
  std::string device;
  bool established = false;
  bool up = false;  // over one of its paths at least
  int measure_port = 0;
  std::vector<IpAddress> addresses;
};

absl::StatusOr<KnownPeer> AskDaemon(const PeerArguments& arguments) {
  const nlohmann::json params = {{"name", arguments.name}};
  const auto reply = CallControl(arguments.socket, "peer", ToJsonText(params));
  if (!reply.ok()) return reply.status();
  KnownPeer peer;
  try {
    const auto json = nlohmann::json::parse(*reply);
    peer.public_key = json.at("public_key").get<std::string>();
    peer.device = json.at("device").get<std::string>();
    peer.established = json.at("established").get<bool>();
    peer.up = json.at("up").get<bool>();
    peer.measure_port = json.at("measure_port").get<int>();
    for (const auto& text : json.at("addresses")) {
      if (const auto address = IpAddress::Parse(text.get<std::string>())) {
        peer.addresses.push_back(*address);
      }
    }
  } catch (const nlohmann::json::exception&) {
    return absl::InternalError("the daemon's answer is not understood; is it of this version?");
  }
  return peer;
}

absl::StatusOr<std::vector<MeasureTarget>> Targets(const PeerArguments& arguments,
                                                   const KnownPeer& peer) {
  if (!peer.established) {
    return absl::UnavailableError(absl::StrCat("the tunnel to \"", arguments.name,
                                               "\" is not established; see 'braid status'"));
  }
  std::vector<IpAddress> addresses = peer.addresses;
  if (!arguments.address.empty()) {
    const auto address = IpAddress::Parse(arguments.address);
    if (!address) {
      return absl::InvalidArgumentError(
          absl::StrCat("--address: \"", arguments.address, "\" is no IP address"));
    }
    addresses = {*address};
  }
  if (addresses.empty()) {
    return absl::NotFoundError(
        "the configuration does not tell which address the peer has inside the tunnel; say it "
        "with --address");
  }
  const int port = arguments.port != 0 ? arguments.port : peer.measure_port;
  if (port == 0) {
    return absl::FailedPreconditionError(
        "measuring is off here (performance.measure_port is 0), so say the peer's with --port");
  }
  std::vector<MeasureTarget> targets;
  for (const IpAddress& address : addresses) {
    targets.push_back({{address, static_cast<uint16_t>(port)}, peer.device, peer.public_key});
  }
  return targets;
}

class PeerBench {
 public:
  // Ends when `stop_fd` becomes readable.
  PeerBench(const PeerArguments& arguments, std::vector<MeasureTarget> targets, int stop_fd)
      : arguments_(arguments), targets_(std::move(targets)), stop_fd_(stop_fd) {}

  // Cancelled when it was to end.
  absl::Status Run();
  // What was measured until Run() returned, and why that is not all. `signal`: that ended it, or 0.
  PeerReport Report(const absl::Status& ended, int signal) const;

 private:
  absl::Status Measure(const std::string& name, const MeasurePlan& plan);
  MeasurePlan Plan(LoadKind load, bool up, bool down) const;
  double UdpRate() const;
  std::string WhyItDoesNotBegin(const absl::Status& status) const;
  std::string WhyItBrokeOff(const absl::Status& status) const;
  std::string WhyItEnded(const absl::Status& ended, int signal) const;

  const PeerArguments& arguments_;
  std::vector<MeasureTarget> targets_;  // one, once it has answered
  const int stop_fd_;
  std::vector<PeerMeasurement> measurements_;
};

MeasurePlan PeerBench::Plan(LoadKind load, bool up, bool down) const {
  MeasurePlan plan;
  plan.load = load;
  plan.up = up;
  plan.down = down;
  plan.seconds = arguments_.seconds;
  plan.flows = arguments_.flows;
  plan.datagram_bytes = arguments_.datagram_bytes;
  return plan;
}

// Loss is of interest where there is room, and datagrams ask much more of a machine than TCP does.
double PeerBench::UdpRate() const {
  if (arguments_.rate_mbps > 0) return arguments_.rate_mbps;
  double least = kMaxMeasureRateMbps;
  for (const PeerMeasurement& each : measurements_) {
    if (each.result.plan.up) least = std::min(least, each.result.up.mbps);
    if (each.result.plan.down) least = std::min(least, each.result.down.mbps);
  }
  return std::max(least / 10, 1.0);
}

absl::Status PeerBench::Measure(const std::string& name, const MeasurePlan& plan) {
  MeasureHooks hooks;
  hooks.on_second = [&](const MeasureProgress& progress) {
    std::ostream& out = arguments_.json ? std::cerr : std::cout;
    out << RenderProgress(name, plan, progress) << std::endl;
  };
  hooks.stop_fd = stop_fd_;
  hooks.on_cut_short = [&](const MeasureResult& result) {
    measurements_.push_back({name, result, true});
  };
  absl::Status first;
  for (const MeasureTarget& target : targets_) {
    auto result = braid::Measure(target, plan, hooks);
    if (result.ok()) measurements_.push_back({name, *result, false});
    if (result.ok() || absl::IsAborted(result.status()) || absl::IsCancelled(result.status())) {
      targets_ = {MeasureTarget(target)};
      return result.status();
    }
    first.Update(result.status());
  }
  return first;
}

absl::Status PeerBench::Run() {
  const auto measure = [this](const std::string& name, LoadKind load, bool up, bool down) {
    MeasurePlan plan = Plan(load, up, down);
    if (load == LoadKind::kUdp) plan.rate_mbps = UdpRate();
    return Measure(name, plan);
  };
  absl::Status status = measure("idle", LoadKind::kIdle, false, false);
  if (status.ok()) status = measure("tcp up", LoadKind::kTcp, true, false);
  if (status.ok()) status = measure("tcp down", LoadKind::kTcp, false, true);
  if (status.ok()) status = measure("tcp both", LoadKind::kTcp, true, true);
  if (status.ok()) status = measure("udp both", LoadKind::kUdp, true, true);
  return status;
}

std::string PeerBench::WhyItDoesNotBegin(const absl::Status& status) const {
  const Endpoint& at = targets_.front().at;
  if (absl::IsUnavailable(status)) {
    return absl::StrCat(
        "nobody answers measurements at ", at.ToString(),
        ": is performance.measure_port the same there (0 is off), and its braid new enough?");
  }
  if (absl::IsDeadlineExceeded(status)) {
    return absl::StrCat(at.ToString(),
                        " is silent: is it the peer's address inside the tunnel, is the tunnel up ",
                        "('braid status'), and does a firewall there let TCP and UDP port ",
                        at.port, " in from the tunnel's device?");
  }
  return std::string(status.message());
}

std::string PeerBench::WhyItBrokeOff(const absl::Status& status) const {
  const std::string what = absl::StrCat("measuring \"", arguments_.name,
                                        "\" broke off: ", std::string(status.message()));
  // NotFound: the device has gone with the daemon here.
  const bool is_gone = absl::IsAborted(status) || absl::IsUnavailable(status) ||
                       absl::IsDeadlineExceeded(status) || absl::IsNotFound(status);
  if (!is_gone) return what;
  // Who stops closes its connections first, and then the tunnel.
  const TimeNs until_ns = MonotonicNowNs() + kNoticedWithinNs;
  auto peer = AskDaemon(arguments_);
  while (peer.ok() && peer->up && MonotonicNowNs() < until_ns) {
    std::this_thread::sleep_for(kAskEvery);
    peer = AskDaemon(arguments_);
  }
  if (!peer.ok()) return absl::StrCat(what, "; ", std::string(peer.status().message()));
  return absl::StrCat(
      what,
      peer->up ? "; the tunnel counts as up here: see whether the daemon there still runs"
               : "; the tunnel is down: see whether the daemon there runs and the link works",
      ", then measure again");
}

std::string PeerBench::WhyItEnded(const absl::Status& ended, int signal) const {
  if (ended.ok()) return "";
  if (signal != 0) return absl::StrCat("ended by ", strsignal(signal));
  const bool has_begun = absl::IsAborted(ended) || !measurements_.empty();
  return has_begun ? WhyItBrokeOff(ended) : WhyItDoesNotBegin(ended);
}

PeerReport PeerBench::Report(const absl::Status& ended, int signal) const {
  const MeasureTarget& target = targets_.front();
  return {arguments_.name, target.at.address.ToString(), target.device, measurements_,
          WhyItEnded(ended, signal)};
}

int BenchPeer(const PeerArguments& arguments) {
  const auto peer = AskDaemon(arguments);
  if (!peer.ok()) return Fail("bench peer", peer.status());
  auto targets = Targets(arguments, *peer);
  if (!targets.ok()) return Fail("bench peer", targets.status());
  const auto signals = TakeOverSignals();
  if (!signals.ok()) return Fail("bench peer", signals.status());
  PeerBench bench(arguments, *std::move(targets), signals->get());
  const absl::Status status = bench.Run();
  const int signal = absl::IsCancelled(status) ? TakeSignal(signals->get()) : 0;
  const PeerReport report = bench.Report(status, signal);
  int exit_code = 0;
  if (!report.measurements.empty()) {
    if (!arguments.json) std::cout << '\n';
    exit_code = PrintReport(report, arguments.json);
  }
  if (status.ok()) return exit_code;
  exit_code = Fail("bench peer", absl::AbortedError(report.error));
  return signal == 0 ? exit_code : 128 + signal;
}

}  // namespace

void AddBenchPeerCommand(CLI::App& bench, int& exit_code) {
  CLI::App* command =
      bench.add_subcommand("peer", "Rate, loss and latency to a peer of the running daemon");
  const auto arguments = std::make_shared<PeerArguments>();
  command->add_option("NAME", arguments->name, "The peer's name, as in \"braid status\"")
      ->required();
  command->add_option("--socket", arguments->socket, "The local daemon's control socket")
      ->type_name("PATH")
      ->capture_default_str();
  command
      ->add_option("--address", arguments->address,
                   "The peer's address inside the tunnel, where the configuration does not tell")
      ->type_name("IP");
  command->add_option("--port", arguments->port, "Its performance.measure_port, if not as here")
      ->check(Between(1, UINT16_MAX))
      ->type_name("PORT");
  command
      ->add_option("--seconds", arguments->seconds, "How long each of the five measurements takes")
      ->check(Between(1, kMaxMeasureSeconds))
      ->type_name("SECONDS")
      ->capture_default_str();
  command->add_option("--flows", arguments->flows, "TCP streams in each direction")
      ->check(Between(1, kMaxMeasureFlows))
      ->type_name("N")
      ->capture_default_str();
  command
      ->add_option("--rate", arguments->rate_mbps,
                   "Of UDP in each direction, instead of a tenth of what TCP reached")
      ->check(Between(0.001, kMaxMeasureRateMbps))
      ->type_name("MBIT/S");
  command->add_option("--size", arguments->datagram_bytes, "Payload of a UDP datagram")
      ->check(Between(kMeasureDatagramBytes, kMaxMeasureDatagramBytes))
      ->type_name("BYTES")
      ->capture_default_str();
  command->add_flag("--json", arguments->json, "Print JSON; the progress goes to standard error");
  command->callback([arguments, &exit_code] { exit_code = BenchPeer(*arguments); });
}

}  // namespace braid
