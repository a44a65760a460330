#include "slowpath/daemon.h"

#include <signal.h>
#include <spdlog/spdlog.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include <algorithm>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <cstdlib>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "slowpath/config_change.h"
#include "slowpath/config_json.h"
#include "slowpath/control_server.h"
#include "slowpath/event_log.h"
#include "slowpath/health.h"
#include "slowpath/http_server.h"
#include "slowpath/log.h"
#include "slowpath/metrics.h"
#include "slowpath/predecessor.h"
#include "slowpath/restart_policy.h"
#include "slowpath/status.h"
#include "slowpath/tunnel.h"
#include "slowpath/watchdog.h"

namespace braid {
namespace {

namespace asio = boost::asio;

constexpr auto kLookAtWatchdogEvery = std::chrono::milliseconds(250);
constexpr size_t kMaxLoggedMistakes = 20;
constexpr size_t kMaxLoggedDifferences = 200;

// What stands behind an error of `reload`, a line each.
std::vector<std::string> LinesOfDetails(const ControlError& error) {
  std::vector<std::string> lines;
  const auto details = nlohmann::json::parse(error.details, nullptr, /*allow_exceptions=*/false);
  if (!details.is_object()) return lines;
  for (const auto& mistake : details.value("mistakes", nlohmann::json::array())) {
    lines.push_back(mistake.get<std::string>());
  }
  for (const auto& change : details.value("changes", nlohmann::json::array())) {
    if (!change.at("needs_restart").get<bool>()) continue;
    lines.push_back(change.at("pointer").get<std::string>() + " can only be changed by a restart");
  }
  return lines;
}

class Daemon {
 public:
  Daemon(std::string file, Config config)
      : file_(std::move(file)),
        config_(std::move(config)),
        end_signals_(io_, SIGINT, SIGTERM),
        reload_signal_(io_, SIGHUP),
        restart_(io_),
        watchdog_timer_(io_) {}

  absl::Status Run();

 private:
  absl::Status ListenForControl();
  absl::Status ListenForHttp();
  ControlResult OnControl(std::string_view verb, const nlohmann::json& params);
  std::string WhyThereIsNoTunnel() const;
  std::string MetricsText();
  ControlResult DescribeEvents(const nlohmann::json& params);
  ControlResult OnStart();
  ControlResult OnStop(const nlohmann::json& params);
  ControlResult OnReload(const nlohmann::json& params);
  ControlResult Reload(bool only_show);
  void ReloadOnSignal();

  std::vector<ConfigDifference> Compare(const Config& next) const;

  absl::Status StartTunnel(Tunnel::Patience patience);
  absl::Status StartFirstTunnel() { return StartTunnel(Tunnel::Patience::kWaits); }
  void StopTunnel();
  [[noreturn]] void EndAtOnce();
  void OnTunnelFailure(absl::Status why);
  void RestartLater();
  void FeedWatchdog();
  void Shutdown();

  const std::string file_;
  Config config_;
  asio::io_context io_{1};
  asio::signal_set end_signals_;
  asio::signal_set reload_signal_;
  EventLog event_log_;
  std::unique_ptr<ControlServer> control_;
  std::unique_ptr<HttpServer> http_;
  std::unique_ptr<Tunnel> tunnel_;  // nothing while it is stopped
  TimeNs tunnel_started_ns_ = 0;
  asio::steady_timer restart_;
  bool restarting_ = false;  // the timer runs, or its handler waits in the loop
  RestartPolicy restarts_;
  TimeNs give_up_starting_ns_ = 0;  // by command, while what it needs is taken
  asio::steady_timer watchdog_timer_;
  Watchdog watchdog_ = Watchdog::OfThisProcess();
  std::string failure_;  // why the tunnel does not run though it is to
  bool stopping_ = false;
};

// The control socket first, so that of two daemons the later one changes nothing. It answers once
// the loop runs.
absl::Status Daemon::Run() {
  for (auto step : {&Daemon::ListenForControl, &Daemon::ListenForHttp, &Daemon::StartFirstTunnel}) {
    if (absl::Status status = (this->*step)(); !status.ok()) return status;
  }
  end_signals_.async_wait([this](const boost::system::error_code& error, int) {
    if (!error) Shutdown();
  });
  ReloadOnSignal();
  FeedWatchdog();
  sd_notify(0, "READY=1");
  io_.run();
  spdlog::info("stopped");
  return absl::OkStatus();
}

absl::Status Daemon::ListenForControl() {
  return TakeOver([this] {
    auto server = ControlServer::Listen(
        io_, config_.control.socket, [this](std::string_view verb, const nlohmann::json& params) {
          return OnControl(verb, params);
        });
    if (server.ok()) control_ = *std::move(server);
    return server.status();
  });
}

absl::Status Daemon::ListenForHttp() {
  if (!config_.control.http) return absl::OkStatus();
  auto server = HttpServer::Listen(
      io_, HttpOptionsOf(*config_.control.http),
      {.verb = [this](std::string_view verb,
                      const nlohmann::json& params) { return OnControl(verb, params); },
       .metrics = [this] { return MetricsText(); },
       .events = event_log_});
  if (!server.ok()) return server.status();
  http_ = *std::move(server);
  return absl::OkStatus();
}

// --- The tunnel ---

absl::Status Daemon::StartTunnel(Tunnel::Patience patience) {
  tunnel_ = std::make_unique<Tunnel>(io_, config_, event_log_,
                                     [this](absl::Status why) { OnTunnelFailure(std::move(why)); });
  tunnel_started_ns_ = MonotonicNowNs();
  absl::Status status = tunnel_->Start(patience);
  if (status.ok()) {
    event_log_.Publish("start", nlohmann::ordered_json::object());
  } else {
    StopTunnel();
  }
  return status;
}

// What still waits in the loop refers to it, so it goes after that.
void Daemon::StopTunnel() {
  if (tunnel_ == nullptr) return;
  if (!tunnel_->Stop()) EndAtOnce();
  asio::post(io_, [this, old = std::shared_ptr<Tunnel>(std::move(tunnel_))]() mutable {
    asio::post(io_, [old = std::move(old)] {});
  });
}

// With a worker that hangs: all that is left is what the kernel takes back, and a worker uses.
void Daemon::EndAtOnce() {
  spdlog::critical("a worker hangs and cannot be ended, so the process ends with it");
  if (http_) http_->Close();
  control_->Close();
  _exit(EXIT_FAILURE);
}

void Daemon::OnTunnelFailure(absl::Status why) {
  failure_ = std::string(why.message());
  spdlog::error("the tunnel has failed: {}", failure_);
  event_log_.Publish("failure", {{"why", failure_}});
  StopTunnel();
  RestartLater();
}

void Daemon::RestartLater() {
  const auto delay_ns = restarts_.OnFailure(tunnel_started_ns_, MonotonicNowNs());
  if (!delay_ns) {
    spdlog::critical("the tunnel stays down after {} restarts: {}", restarts_.restarts(), failure_);
    return;
  }
  spdlog::warn("the tunnel is started again in {} s", *delay_ns / kSecondNs);
  restarting_ = true;
  restart_.expires_after(std::chrono::nanoseconds(*delay_ns));
  restart_.async_wait([this](const boost::system::error_code& error) {
    // One that had fired already when the tunnel was stopped by command comes here without an
    // error.
    if (error || stopping_ || !std::exchange(restarting_, false) || tunnel_ != nullptr) return;
    const absl::Status status = StartTunnel(Tunnel::Patience::kNone);
    if (!status.ok()) return OnTunnelFailure(status);
    failure_.clear();
  });
}

// --- Control ---

ControlResult Daemon::OnControl(std::string_view verb, const nlohmann::json& params) {
  if (stopping_) return ControlError{ControlCode::kUnavailable, "the daemon is stopping"};
  if (verb == "start") return OnStart();
  if (verb == "stop") return OnStop(params);
  if (verb == "reload") return OnReload(params);
  if (verb == "events") return DescribeEvents(params);
  if (verb == "config") return ToJsonText(ToJson(config_));
  if (verb == "metrics") return ToJsonText(nlohmann::ordered_json{{"text", MetricsText()}});
  if (tunnel_ != nullptr) return tunnel_->OnVerb(verb, params);
  if (verb == "status") return ToJsonText(DescribeStopped(config_, failure_));
  const std::string why = WhyThereIsNoTunnel();
  if (verb == "health") return ToJsonText(DescribeHealth(HealthWithoutTunnel(why)));
  return ControlError{ControlCode::kUnavailable, why};
}

std::string Daemon::WhyThereIsNoTunnel() const {
  return failure_.empty() ? "the tunnel is stopped; \"braid start\" starts it"
                          : "the tunnel has failed: " + failure_;
}

std::string Daemon::MetricsText() {
  if (tunnel_ != nullptr) return tunnel_->MetricsText();
  return RenderMetrics(CollectMetrics(HealthWithoutTunnel(WhyThereIsNoTunnel())));
}

// {"after": id}: those that came later; else all that are kept.
ControlResult Daemon::DescribeEvents(const nlohmann::json& params) {
  const auto after = params.find("after");
  if (after != params.end() && !after->is_number_unsigned()) {
    return ControlError{ControlCode::kBadParams, "\"after\" must be the id of an event"};
  }
  const uint64_t since = after == params.end() ? 0 : after->get<uint64_t>();
  nlohmann::ordered_json json;
  json["events"] = nlohmann::ordered_json::array();
  const auto follower = event_log_.Follow(since, [] {});
  while (const LoggedEvent* event = follower->Next()) {
    json["events"].push_back({{"id", event->id},
                              {"time_ms", event->time_ms},
                              {"type", event->type},
                              {"data", nlohmann::ordered_json::parse(event->data)}});
  }
  json["last_id"] = event_log_.last_id();
  return ToJsonText(json);
}

// A restart that is to come stays so until this has succeeded.
ControlResult Daemon::OnStart() {
  if (tunnel_ != nullptr) return std::string("{}");
  restarts_.Reset();
  const absl::Status status = StartTunnel(Tunnel::Patience::kNone);
  if (status.ok()) {
    restarting_ = false;
    restart_.cancel();
    failure_.clear();
    give_up_starting_ns_ = 0;
    return std::string("{}");
  }
  failure_ = std::string(status.message());
  ControlError error = ToConfigError(status);
  // The kernel may not have let go yet of what the tunnel before this one had.
  const TimeNs now_ns = MonotonicNowNs();
  const bool is_first_try = give_up_starting_ns_ == 0 || now_ns >= give_up_starting_ns_ + kSecondNs;
  if (is_first_try) give_up_starting_ns_ = now_ns + kPredecessorEndsInNs;
  error.ask_again = absl::IsAlreadyExists(status) && now_ns < give_up_starting_ns_;
  if (error.ask_again) return error;
  give_up_starting_ns_ = 0;
  spdlog::error("the tunnel cannot be started: {}", failure_);
  return error;
}

// {"scope": "tunnel"}: until it is started again; {"scope": "daemon"}: with the daemon.
ControlResult Daemon::OnStop(const nlohmann::json& params) {
  const auto found = params.find("scope");
  const std::string scope = found == params.end() ? "tunnel"
                            : found->is_string()  ? found->get<std::string>()
                                                  : "";
  if (scope == "daemon") {
    asio::post(io_, [this] { Shutdown(); });
    return std::string("{}");
  }
  if (scope != "tunnel") {
    return ControlError{ControlCode::kBadParams, "\"scope\" must be \"tunnel\" or \"daemon\""};
  }
  restarting_ = false;
  restart_.cancel();
  failure_.clear();
  if (tunnel_ != nullptr) event_log_.Publish("stop", nlohmann::ordered_json::object());
  StopTunnel();
  return std::string("{}");
}

// Only while the loop turns and the workers do: what hangs is for the service manager to start
// anew.
void Daemon::FeedWatchdog() {
  const bool alive = tunnel_ == nullptr || tunnel_->AreWorkersAlive();
  if (watchdog_.IsDue(alive, MonotonicNowNs())) sd_notify(0, "WATCHDOG=1");
  watchdog_timer_.expires_after(kLookAtWatchdogEvery);
  watchdog_timer_.async_wait([this](const boost::system::error_code& error) {
    if (!error && !stopping_) FeedWatchdog();
  });
}

// --- Another configuration ---

// {"only_show": true}: what differs, and nothing is done.
ControlResult Daemon::OnReload(const nlohmann::json& params) {
  const auto only_show = params.find("only_show");
  if (only_show != params.end() && !only_show->is_boolean()) {
    return ControlError{ControlCode::kBadParams, "\"only_show\" must be true or false"};
  }
  return Reload(only_show != params.end() && only_show->get<bool>());
}

void Daemon::ReloadOnSignal() {
  reload_signal_.async_wait([this](const boost::system::error_code& error, int) {
    if (error || stopping_) return;
    sd_notify(0,
              ("RELOADING=1\nMONOTONIC_USEC=" + std::to_string(MonotonicNowNs() / 1000)).c_str());
    const ControlResult result = Reload(false);
    if (const auto* failed = std::get_if<ControlError>(&result)) {
      spdlog::error("SIGHUP changed nothing: {}", failed->message);
      const std::vector<std::string> lines = LinesOfDetails(*failed);
      for (size_t i = 0; i < std::min(lines.size(), kMaxLoggedMistakes); ++i) {
        spdlog::error("{}", lines[i]);
      }
      if (lines.size() > kMaxLoggedMistakes) {
        spdlog::error("and {} more; \"braid check\" shows them", lines.size() - kMaxLoggedMistakes);
      }
    }
    sd_notify(0, "READY=1");
    ReloadOnSignal();
  });
}

// Other contents of a file count, too.
std::vector<ConfigDifference> Daemon::Compare(const Config& next) const {
  std::vector<ConfigDifference> differences = CompareConfigs(config_, next);
  if (tunnel_ == nullptr) return differences;
  for (const PeerConfig* peer : tunnel_->PeersWithAnotherKey(next)) {
    differences.push_back(OtherPresharedKey(*peer));
  }
  return differences;
}

ControlResult Daemon::Reload(bool only_show) {
  LoadedConfig loaded = LoadConfig(file_, ProcessEnvironment());
  if (!loaded.config) {
    nlohmann::ordered_json details;
    for (const Mistake& mistake : loaded.mistakes) {
      details["mistakes"].push_back(DescribeMistake(loaded.file, mistake));
    }
    return ControlError{ControlCode::kBadConfig,
                        "the configuration has mistakes, and nothing was changed: " +
                            DescribeMistake(loaded.file, loaded.mistakes.at(0)),
                        ToJsonText(details)};
  }
  const auto differences = Compare(*loaded.config);
  nlohmann::ordered_json result;
  result["changes"] = ToJson(differences);
  result["warnings"] = nlohmann::ordered_json::array();
  for (const Mistake& warning : loaded.warnings) {
    result["warnings"].push_back(DescribeMistake(loaded.file, warning));
  }
  if (only_show) return ToJsonText(result);
  const auto fixed = std::find_if(differences.begin(), differences.end(),
                                  [](const ConfigDifference& one) { return !one.live; });
  if (fixed != differences.end()) {
    return ControlError{ControlCode::kNeedsRestart,
                        loaded.file + ": " + fixed->pointer +
                            " can only be changed by a restart, so nothing was changed",
                        ToJsonText(result)};
  }
  if (tunnel_ != nullptr) {
    if (absl::Status status = tunnel_->Apply(*loaded.config); !status.ok()) {
      return ToConfigError(status);
    }
  }
  if (loaded.config->log != config_.log) {
    const absl::Status status = SetUpLog(loaded.config->log.level, loaded.config->log.format);
    if (!status.ok()) spdlog::warn("{}", std::string(status.message()));
  }
  config_ = *std::move(loaded.config);
  for (size_t i = 0; i < std::min(differences.size(), kMaxLoggedDifferences); ++i) {
    const ConfigDifference& one = differences[i];
    spdlog::info("{}: {} is {} now, was {}", loaded.file, one.pointer,
                 one.after.empty() ? "nothing" : one.after,
                 one.before.empty() ? "nothing" : one.before);
  }
  nlohmann::ordered_json pointers = nlohmann::ordered_json::array();
  for (const ConfigDifference& one : differences) pointers.push_back(one.pointer);
  event_log_.Publish("reload", {{"changes", pointers}});
  spdlog::info("read {} again: {} differences", loaded.file, differences.size());
  return ToJsonText(result);
}

// io_.run() returns when nothing is left to wait for. The tunnel goes before the control socket:
// who waits for the socket's end finds nothing left.
void Daemon::Shutdown() {
  if (std::exchange(stopping_, true)) return;
  sd_notify(0, "STOPPING=1");
  spdlog::info("stopping");
  end_signals_.cancel();
  reload_signal_.cancel();
  restarting_ = false;
  restart_.cancel();
  watchdog_timer_.cancel();
  StopTunnel();
  if (http_) http_->Close();
  control_->Close();
}

}  // namespace

absl::Status RunDaemon(const std::string& file, Config config) {
  return Daemon(file, std::move(config)).Run();
}

}  // namespace braid
