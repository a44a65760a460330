// `braid bench tunnel`: two daemons and the load between them in namespaces of their own, through
// the tunnel and beside it in turn.
//
//   near 10.98.1.1 ──veth── 10.98.1.2 far            no tunnel
//     └ 10.98.2.1 ══ braid0 ══ 10.98.2.2 ┘           tunnel
//
// The main thread owns everything and waits for signals and for children that die; the work is done
// by a thread that it can tell to stop.
#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <atomic>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <cstring>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "cli/bench.h"
#include "cli/child_daemon.h"
#include "cli/outcome.h"
#include "cli/private_folder.h"
#include "fastpath/aead.h"
#include "slowpath/control_client.h"
#include "slowpath/cpu_topology.h"
#include "slowpath/key_file.h"
#include "slowpath/measure_client.h"
#include "slowpath/measure_responder.h"
#include "slowpath/noise.h"
#include "slowpath/throwaway_network.h"

namespace braid {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kLinkMtu = 1500;
constexpr uint16_t kTunnelPort = 7700;
constexpr uint16_t kMeasurePort = 7799;
constexpr size_t kSmallDatagramBytes = 64;
constexpr char kNearOuter[] = "10.98.1.1", kFarOuter[] = "10.98.1.2";
constexpr char kNearInner[] = "10.98.2.1", kFarInner[] = "10.98.2.2";
constexpr DurationNs kEstablishedWithinNs = 10 * kSecondNs;
constexpr int kPollMs = 50;
constexpr std::chrono::milliseconds kStatusTimeout{1000};

struct TunnelArguments {
  int rounds = 3;
  int seconds = 2;  // of each measurement
  std::string cipher = "aes-256-gcm";
  std::string io = "auto";
  int workers = 0;  // 0: one for each core
  bool json = false;
};

// --- The two ends ---

struct End {
  const char* name;
  Secret private_key = KeyPair::Generate().private_key;
  Key public_key = KeyPair::FromPrivate(private_key).public_key;

  std::string File(const char* ending) const { return absl::StrCat(name, ".", ending); }
};

Json ConfigOf(const End& end, const char* address, const PrivateFolder& folder,
              const TunnelArguments& arguments) {
  Json config;
  config["network"]["addresses"] = {absl::StrCat(address, "/24")};
  config["security"]["private_key_file"] = folder.Path(end.File("key"));
  config["security"]["state_dir"] = folder.Path(end.File("state"));
  config["control"]["socket"] = folder.Path(end.File("sock"));
  config["tunnel"]["ciphers"] = {arguments.cipher};
  if (arguments.cipher != "chacha20-poly1305") {
    config["tunnel"]["ciphers"].push_back("chacha20-poly1305");  // which everyone must have
  }
  config["performance"]["io"] = arguments.io;
  config["performance"]["measure_port"] = 0;
  if (arguments.workers > 0) config["performance"]["workers"] = arguments.workers;
  return config;
}

Json PeerOf(const End& end, const char* address) {
  return {{"name", end.name},
          {"public_key", EncodeKey(end.public_key)},
          {"allowed_ips", {absl::StrCat(address, "/32")}}};
}

absl::Status WriteFiles(const PrivateFolder& folder, const End& near, const End& far,
                        const TunnelArguments& arguments) {
  Json client = ConfigOf(near, kNearInner, folder, arguments);
  client["mode"] = "client";
  Json hub = PeerOf(far, kFarInner);
  hub["endpoints"] = {absl::StrCat(kFarOuter, ":", kTunnelPort)};
  client["tunnel"]["peers"] = Json::array({hub});
  Json server = ConfigOf(far, kFarInner, folder, arguments);
  server["mode"] = "server";
  server["tunnel"]["listen"] = Json::array({{{"address", kFarOuter}, {"port", kTunnelPort}}});
  server["tunnel"]["peers"] = Json::array({PeerOf(near, kNearInner)});
  for (const auto& [end, config] : {std::pair(&near, &client), std::pair(&far, &server)}) {
    absl::Status status = folder.Write(end->File("json"), config->dump());
    if (status.ok()) status = folder.Write(end->File("key"), EncodeKey(end->private_key) + "\n");
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

// Answers measurements in a namespace, at every address there.
class Responder {
 public:
  absl::Status Start(const NetworkNamespace& in, int tcp_threads) {
    MeasureResponderOptions options;
    options.addresses = {IpAddress::Any(IpAddress::Family::kV4)};
    options.port = kMeasurePort;
    options.tcp_threads = tcp_threads;
    options.allows = [](const IpAddress&) { return true; };
    responder_.emplace(io_, std::move(options));
    absl::Status listening;
    std::atomic<bool> ready{false};
    thread_ = std::thread([this, &in, &listening, &ready] {
      listening = in.Enter();  // its sessions' threads are born in there as well
      if (listening.ok()) listening = responder_->Listen();
      const bool go = listening.ok();
      ready = true;
      ready.notify_one();
      if (go) io_.run();
    });
    ready.wait(false);
    return listening;
  }
  ~Responder() {
    if (!thread_.joinable()) return;
    boost::asio::post(io_, [this] { responder_->Close(); });
    thread_.join();
  }

 private:
  boost::asio::io_context io_{1};
  std::optional<MeasureResponder> responder_;
  std::thread thread_;
};

// --- The work ---

// One figure of one measurement.
struct Sample {
  std::string name;
  std::string unit;
  double value;
};

// What is measured in each round, and what is taken from it.
struct Task {
  std::string name;
  MeasurePlan plan;
  std::vector<Sample> (*samples)(const MeasureResult& result);
};

std::vector<Task> Tasks(int seconds) {
  const auto plan = [seconds](LoadKind load, bool up, bool down, int flows) {
    MeasurePlan made;
    made.load = load;
    made.up = up;
    made.down = down;
    made.seconds = seconds;
    made.flows = flows;
    made.datagram_bytes = kSmallDatagramBytes;
    return made;
  };
  return {
      {"ping idle", plan(LoadKind::kIdle, false, false, 1),
       [](const MeasureResult& result) -> std::vector<Sample> {
         return {{"ping idle", "ms", result.latency.p50_ms}};
       }},
      {"tcp up", plan(LoadKind::kTcp, true, false, 1),
       [](const MeasureResult& result) -> std::vector<Sample> {
         return {{"tcp up", "Mbit/s", result.up.mbps},
                 {"ping under tcp up", "ms", result.latency.p50_ms},
                 {"ping under tcp up, p99", "ms", result.latency.p99_ms}};
       }},
      {"tcp down", plan(LoadKind::kTcp, false, true, 1),
       [](const MeasureResult& result) -> std::vector<Sample> {
         return {{"tcp down", "Mbit/s", result.down.mbps}};
       }},
      {"tcp up, 4 flows", plan(LoadKind::kTcp, true, false, 4),
       [](const MeasureResult& result) -> std::vector<Sample> {
         return {{"tcp up, 4 flows", "Mbit/s", result.up.mbps}};
       }},
      {"tcp both ways", plan(LoadKind::kTcp, true, true, 1),
       [](const MeasureResult& result) -> std::vector<Sample> {
         return {{"tcp both ways, sum", "Mbit/s", result.up.mbps + result.down.mbps}};
       }},
      {"udp 64 bytes up", plan(LoadKind::kUdp, true, false, 1),
       [](const MeasureResult& result) -> std::vector<Sample> {
         return {{"udp 64 bytes up, received", "/s", result.up.datagrams_per_s}};
       }},
  };
}

class TunnelBench {
 public:
  TunnelBench(const TunnelArguments& arguments, const PrivateFolder& folder, int stop_fd)
      : arguments_(arguments), folder_(folder), stop_fd_(stop_fd) {}

  // Runs on a thread in the near namespace.
  absl::StatusOr<TunnelReport> Run(const End& near);

 private:
  absl::Status WaitUntilEstablished(const End& near);
  absl::Status Round(int round, BenchProgress& progress);
  absl::Status Measure(const Task& task, bool tunnel, BenchProgress& progress);
  void Note(const Sample& sample, bool tunnel);

  const TunnelArguments& arguments_;
  const PrivateFolder& folder_;
  const int stop_fd_;
  const std::vector<Task> tasks_ = Tasks(arguments_.seconds);
  TunnelReport report_;
};

absl::Status TunnelBench::WaitUntilEstablished(const End& near) {
  const TimeNs give_up_ns = MonotonicNowNs() + kEstablishedWithinNs;
  while (MonotonicNowNs() < give_up_ns) {
    const auto reply = CallControl(folder_.Path(near.File("sock")), "status", "{}", kStatusTimeout);
    const Json status = reply.ok() ? Json::parse(*reply) : Json();
    if (reply.ok() && status.at("peers").at(0).at("established").get<bool>()) {
      report_.cipher = status.at("peers").at(0).at("cipher").get<std::string>();
      report_.io = status.at("io").get<std::string>();
      report_.workers = static_cast<int>(status.at("workers").size());
      report_.mtu = status.at("network").at("mtu").get<int>();
      report_.rounds = arguments_.rounds;
      report_.seconds = arguments_.seconds;
      return absl::OkStatus();
    }
    pollfd polled{stop_fd_, POLLIN, 0};
    if (poll(&polled, 1, kPollMs) > 0) return absl::CancelledError("stopped");
  }
  return absl::DeadlineExceededError("the two daemons do not come together");
}

void TunnelBench::Note(const Sample& sample, bool tunnel) {
  auto figure = std::find_if(report_.figures.begin(), report_.figures.end(),
                             [&](const TunnelFigure& each) { return each.name == sample.name; });
  if (figure == report_.figures.end()) {
    report_.figures.push_back({sample.name, sample.unit, {}, {}});
    figure = std::prev(report_.figures.end());
  }
  (tunnel ? figure->tunnel : figure->bare).push_back(sample.value);
}

absl::Status TunnelBench::Measure(const Task& task, bool tunnel, BenchProgress& progress) {
  const std::string what = task.name + (tunnel ? ", tunnel" : ", no tunnel");
  progress.Step(what);
  MeasureTarget target;
  target.at = {*IpAddress::Parse(tunnel ? kFarInner : kFarOuter), kMeasurePort};
  target.tcp_threads = static_cast<int>(AffinityOfThisProcess().size());
  MeasureHooks hooks;
  hooks.stop_fd = stop_fd_;
  const auto result = braid::Measure(target, task.plan, hooks);
  if (!result.ok()) {
    return absl::Status(result.status().code(),
                        absl::StrCat(what, ": ", std::string(result.status().message())));
  }
  for (const Sample& sample : task.samples(*result)) Note(sample, tunnel);
  return absl::OkStatus();
}

// Who goes first takes turns as well.
absl::Status TunnelBench::Round(int round, BenchProgress& progress) {
  for (const Task& task : tasks_) {
    for (const bool tunnel : {round % 2 == 0, round % 2 != 0}) {
      if (absl::Status status = Measure(task, tunnel, progress); !status.ok()) return status;
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<TunnelReport> TunnelBench::Run(const End& near) {
  BenchProgress progress(arguments_.rounds * static_cast<int>(tasks_.size()) * 2);
  if (absl::Status status = WaitUntilEstablished(near); !status.ok()) return status;
  for (int round = 0; round < arguments_.rounds; ++round) {
    if (absl::Status status = Round(round, progress); !status.ok()) return status;
  }
  return std::move(report_);
}

// --- The supervision ---

// Why the work is to end before it has.
struct Interruption {
  int signal = 0;
  absl::Status status;
};

// Returns when `done_fd` is readable, or earlier with the reason.
std::optional<Interruption> Supervise(int done_fd, int signal_fd,
                                      const std::vector<ChildDaemon>& daemons) {
  std::vector<pollfd> polled = {{done_fd, POLLIN, 0}, {signal_fd, POLLIN, 0}};
  for (const ChildDaemon& daemon : daemons) polled.push_back({daemon.fd(), POLLIN, 0});
  while (true) {
    if (poll(polled.data(), polled.size(), -1) < 0) continue;
    if (polled[0].revents != 0) return std::nullopt;
    if (const int number = TakeSignal(signal_fd); number != 0) {
      return Interruption{number, absl::CancelledError(absl::StrCat("ended by ", strsignal(number),
                                                                    "; nothing is left behind"))};
    }
    for (size_t i = 0; i < daemons.size(); ++i) {
      if (polled[i + 2].revents == 0) continue;
      return Interruption{
          0, absl::AbortedError(absl::StrCat("the daemon at the ", daemons[i].name(),
                                             " end has died:\n", daemons[i].LastWords()))};
    }
  }
}

struct Outcome {
  absl::StatusOr<TunnelReport> report = absl::UnknownError("");
  int signal = 0;
};

// What it makes goes away in reverse order when it returns.
Outcome MeasureTunnel(const TunnelArguments& arguments, int signal_fd) {
  const End near_end{"near"}, far_end{"far"};
  auto near = NetworkNamespace::Create();
  if (!near.ok()) return {near.status()};
  auto far = NetworkNamespace::Create();
  if (!far.ok()) return {far.status()};
  absl::Status status =
      JoinByVeth({*near, "far", *IpPrefix::Parse(absl::StrCat(kNearOuter, "/24"))},
                 {*far, "near", *IpPrefix::Parse(absl::StrCat(kFarOuter, "/24"))}, kLinkMtu);
  if (!status.ok()) return {status};
  const auto folder = PrivateFolder::Create();
  if (!folder.ok()) return {folder.status()};
  status = WriteFiles(*folder, near_end, far_end, arguments);
  if (!status.ok()) return {status};

  std::vector<ChildDaemon> daemons;
  for (const auto& [end, network] : {std::pair(&far_end, &*far), std::pair(&near_end, &*near)}) {
    auto daemon = ChildDaemon::Start(*network, end->name, folder->Path(end->File("json")),
                                     folder->Path(end->File("log")));
    if (!daemon.ok()) return {daemon.status()};
    daemons.push_back(*std::move(daemon));
  }
  Responder responder;
  status = responder.Start(*far, static_cast<int>(AffinityOfThisProcess().size()));
  if (!status.ok()) return {status};

  const UniqueFd stop(eventfd(0, EFD_CLOEXEC)), done(eventfd(0, EFD_CLOEXEC));
  Outcome outcome;
  std::thread work([&] {
    TunnelBench bench(arguments, *folder, stop.get());
    try {
      const absl::Status entered = near->Enter();
      outcome.report = entered.ok() ? bench.Run(near_end) : entered;
    } catch (const std::exception& error) {
      outcome.report = absl::InternalError(error.what());
    }
    eventfd_write(done.get(), 1);
  });
  const auto interruption = Supervise(done.get(), signal_fd, daemons);
  eventfd_write(stop.get(), 1);
  work.join();
  if (interruption) {
    outcome.report = interruption->status;
    outcome.signal = interruption->signal;
  }
  return outcome;
}

int BenchTunnel(const TunnelArguments& arguments) {
  const auto signals = TakeOverSignals();
  if (!signals.ok()) return Fail("bench tunnel", signals.status());
  Outcome outcome = MeasureTunnel(arguments, signals->get());
  if (!outcome.report.ok()) {
    Fail("bench tunnel", outcome.report.status());
    return outcome.signal == 0 ? 1 : 128 + outcome.signal;
  }
  if (const auto suite = ChooseAeads("auto"); suite.ok()) {
    for (const Cipher cipher : {Cipher::kAes256Gcm, Cipher::kChaCha20Poly1305}) {
      const bool is_it = CipherName(cipher) == outcome.report->cipher;
      if (is_it && (*suite)[cipher] != nullptr) outcome.report->aead = (*suite)[cipher]->backend;
    }
  }
  return PrintReport(*outcome.report, arguments.json);
}

}  // namespace

void AddBenchTunnelCommand(CLI::App& bench, int& exit_code) {
  CLI::App* command = bench.add_subcommand(
      "tunnel", "A whole tunnel on this machine beside the link without it (needs root)");
  const auto arguments = std::make_shared<TunnelArguments>();
  command->add_option("--rounds", arguments->rounds, "How often everything is measured")
      ->check(Between(1, 1000))
      ->type_name("N")
      ->capture_default_str();
  command->add_option("--seconds", arguments->seconds, "How long each measurement takes")
      ->check(Between(1, kMaxMeasureSeconds))
      ->type_name("SECONDS")
      ->capture_default_str();
  command->add_option("--cipher", arguments->cipher, "What the tunnel seals with")
      ->type_name("NAME")
      ->check(CLI::IsMember({"aes-256-gcm", "chacha20-poly1305"}))
      ->capture_default_str();
  command->add_option("--io", arguments->io, "How the workers read and write")
      ->type_name("NAME")
      ->check(CLI::IsMember({"auto", "io_uring", "epoll"}))
      ->capture_default_str();
  command->add_option("--workers", arguments->workers, "Of each daemon; one a core if not given")
      ->check(Between(1, kMaxWorkers))
      ->type_name("N");
  command->add_flag("--json", arguments->json, "Print JSON");
  command->callback([arguments, &exit_code] { exit_code = BenchTunnel(*arguments); });
}

}  // namespace braid
