#include "modes.h"

#include <algorithm>
#include <cmath>
#include <deque>
#include <nlohmann/json.hpp>
#include <optional>

#include "absl/strings/str_format.h"
#include "progress.h"
#include "server_process.h"

namespace braid::swarm {
namespace {

constexpr DurationNs kTurnNs = 5 * kMillisecondNs;      // between two looks at a pace
constexpr DurationNs kSettleNs = 300 * kMillisecondNs;  // until the server has taken what was sent
// Without one more client established for so long, the rest is given up.
constexpr DurationNs kPatienceNs = 20 * kSecondNs;

DurationNs Nanoseconds(double seconds) { return static_cast<DurationNs>(seconds * 1e9); }
double SecondsSince(TimeNs then_ns) {
  return static_cast<double>(MonotonicNowNs() - then_ns) / kSecondNs;
}

// How many of something are due, at a rate from now on.
class Metronome {
 public:
  explicit Metronome(double per_second) : per_second_(per_second) {}
  uint64_t Due() const {
    return static_cast<uint64_t>(SecondsSince(began_ns_) * per_second_) + 1 - given_;
  }
  void Give(uint64_t count) { given_ += count; }
  TimeNs NextNs() const {
    return began_ns_ + Nanoseconds(static_cast<double>(given_) / per_second_);
  }

 private:
  const double per_second_;
  const TimeNs began_ns_ = MonotonicNowNs();
  uint64_t given_ = 0;
};

// Begins handshakes at a pace, of clients that are given to it.
class Starter {
 public:
  Starter(Swarm& swarm, const Pace& pace) : swarm_(swarm), pace_(pace) {
    if (pace.per_second > 0) metronome_.emplace(pace.per_second);
  }

  void Give(uint32_t number, TimeNs from_ns) { ready_.push_back({number, from_ns}); }
  bool empty() const { return ready_.empty(); }

  // Begins what is due, then lets the swarm run until more may be.
  void Turn(TimeNs until_ns) {
    const TimeNs now_ns = MonotonicNowNs();
    uint64_t due = metronome_ ? metronome_->Due()
                              : pace_.window - std::min(pace_.window, swarm_.handshaking());
    uint64_t begun = 0;
    for (; begun < due && !ready_.empty() && ready_.front().from_ns <= now_ns; ++begun) {
      swarm_.Begin(ready_.front().number);
      ready_.pop_front();
    }
    TimeNs next_ns = MonotonicNowNs() + (metronome_ ? kTurnNs : 0);
    if (metronome_) {
      // A beat that found nobody ready is over.
      metronome_->Give(due);
      next_ns = std::min(next_ns, metronome_->NextNs());
    } else if (begun < due) {
      next_ns += kMillisecondNs;
    }
    swarm_.Run(std::min(until_ns, next_ns));
  }

 private:
  struct Ready {
    uint32_t number;
    TimeNs from_ns;
  };
  Swarm& swarm_;
  const Pace pace_;
  std::optional<Metronome> metronome_;
  std::deque<Ready> ready_;  // in the order of their times
};

Json Percentiles(std::vector<float> values) {
  if (values.empty()) return nullptr;
  std::sort(values.begin(), values.end());
  const auto at = [&values](double share) {
    const auto index = static_cast<size_t>(share * static_cast<double>(values.size() - 1));
    return std::round(values[index] * 1000) / 1000;
  };
  return {{"p50", at(0.5)}, {"p90", at(0.9)}, {"p99", at(0.99)}, {"max", at(1)}};
}

Json Difference(const Tally& now, const Tally& before) {
  return {{"initiations", now.initiations - before.initiations},
          {"retries", now.retries - before.retries},
          {"cookies", now.cookies - before.cookies},
          {"failed", now.failed - before.failed},
          {"lost_sessions", now.lost - before.lost},
          {"closed_by_server", now.closed_by_server - before.closed_by_server},
          {"refused_datagrams", now.refused - before.refused}};
}

// The part of the latencies that came after `before`.
Json LatenciesSince(const Tally& now, const Tally& before) {
  return Percentiles({now.latencies_ms.begin() + static_cast<ptrdiff_t>(before.latencies_ms.size()),
                      now.latencies_ms.end()});
}

Json Describe(const MemoryUse& memory) {
  return {{"resident_bytes", memory.resident_bytes},
          {"proportional_bytes", memory.proportional_bytes}};
}

Json Describe(const CpuTimes& cpu) {
  return {{"workers_s", cpu.workers_s}, {"others_s", cpu.others_s}, {"threads_s", cpu.by_thread_s}};
}

absl::StatusOr<std::optional<MemoryUse>> Memory(const ServerProbe& server) {
  if (server.pid == 0) return std::nullopt;
  auto use = ReadMemoryUse(server.pid);
  if (!use.ok()) return use.status();
  return *use;
}

absl::StatusOr<std::optional<CpuTimes>> Cpu(const ServerProbe& server) {
  if (server.pid == 0) return std::nullopt;
  auto times = ReadCpuTimes(server.pid);
  if (!times.ok()) return times.status();
  return *times;
}

absl::StatusOr<std::optional<ServerCounts>> Counts(const ServerProbe& server) {
  if (server.control_socket.empty()) return std::nullopt;
  auto counts = ReadServerCounts(server.control_socket);
  if (!counts.ok()) return counts.status();
  return *counts;
}

// Every client does its first handshake.
absl::StatusOr<Json> EstablishAll(Swarm& swarm, const Pace& pace, Progress& progress) {
  const Tally before = swarm.tally();
  const TimeNs began_ns = MonotonicNowNs();
  Starter starter(swarm, pace);
  for (uint32_t number = 0; number < swarm.size(); ++number) starter.Give(number, 0);
  uint32_t most = 0;
  TimeNs most_ns = began_ns;
  while (swarm.established() < swarm.size() && !Interrupted()) {
    starter.Turn(MonotonicNowNs() + kTurnNs);
    if (swarm.established() > most) {
      most = swarm.established();
      most_ns = MonotonicNowNs();
    }
    progress.Show("establishing: " + Grouped(swarm.established()) + " of " + Grouped(swarm.size()) +
                  ", " + Grouped(static_cast<double>(swarm.tally().retries)) + " retries");
    if (MonotonicNowNs() > most_ns + kPatienceNs) {
      return absl::DeadlineExceededError(
          absl::StrFormat("only %u of %u clients are established and no more follow: does the "
                          "server run with the configuration that \"swarm keys\" wrote?",
                          swarm.established(), swarm.size()));
    }
  }
  const double seconds = SecondsSince(began_ns);
  Json result;
  result["clients"] = swarm.established();
  result["seconds"] = seconds;
  result["per_second"] = swarm.established() / seconds;
  result["latency_ms"] = LatenciesSince(swarm.tally(), before);
  result["counts"] = Difference(swarm.tally(), before);
  progress.Say(
      absl::StrFormat("established: all %s in %.1f s", Grouped(swarm.established()), seconds));
  return result;
}

}  // namespace

absl::StatusOr<Json> RunHandshakes(Swarm& swarm, const ServerProbe& server,
                                   const HandshakesMode& mode) {
  Progress progress;
  Starter starter(swarm, mode.pace);
  for (uint32_t number = 0; number < swarm.size(); ++number) starter.Give(number, 0);
  swarm.on_handshake_end = [&](uint32_t number) {
    starter.Give(number, MonotonicNowNs() + Nanoseconds(mode.again_s));
  };
  const auto run_for = [&](double seconds) {
    const TimeNs end_ns = MonotonicNowNs() + Nanoseconds(seconds);
    while (MonotonicNowNs() < end_ns && !Interrupted()) {
      starter.Turn(end_ns);
      progress.Show("handshakes: " + Grouped(static_cast<double>(swarm.tally().completed)) +
                    " completed, " + Grouped(swarm.handshaking()) + " under way, " +
                    Grouped(static_cast<double>(swarm.tally().retries)) + " retries");
    }
  };
  run_for(mode.warmup_s);
  const auto cpu_before = Cpu(server);
  if (!cpu_before.ok()) return cpu_before.status();
  const Tally before = swarm.tally();
  const TimeNs began_ns = MonotonicNowNs();
  run_for(mode.seconds);
  const auto cpu_after = Cpu(server);
  if (!cpu_after.ok()) return cpu_after.status();
  const double seconds = SecondsSince(began_ns);
  const auto completed = static_cast<double>(swarm.tally().completed - before.completed);
  swarm.on_handshake_end = nullptr;

  Json result;
  result["mode"] = "handshakes";
  result["clients"] = swarm.size();
  result["seconds"] = seconds;
  result["completed"] = completed;
  result["per_second"] = completed / seconds;
  result["latency_ms"] = LatenciesSince(swarm.tally(), before);
  result["counts"] = Difference(swarm.tally(), before);
  if (*cpu_after && completed > 0) {
    const CpuTimes spent = **cpu_after - **cpu_before;
    result["server_cpu"] = Describe(spent);
    result["server_cpu"]["us_per_handshake"] = spent.total_s() / completed * 1e6;
    result["server_cpu"]["others_us_per_handshake"] = spent.others_s / completed * 1e6;
    result["per_second_and_core"] = completed / spent.others_s;
    result["per_second_and_core_with_workers"] = completed / spent.total_s();
  }
  return result;
}

absl::StatusOr<Json> RunIdle(Swarm& swarm, const ServerProbe& server, const IdleMode& mode) {
  Progress progress;
  const auto memory_before = Memory(server);
  if (!memory_before.ok()) return memory_before.status();
  auto established = EstablishAll(swarm, mode.pace, progress);
  if (!established.ok()) return established.status();
  swarm.Run(MonotonicNowNs() + kSettleNs);
  const auto memory_after = Memory(server);
  if (!memory_after.ok()) return memory_after.status();

  const Tally before = swarm.tally();
  const auto cpu_before = Cpu(server);
  if (!cpu_before.ok()) return cpu_before.status();
  const TimeNs began_ns = MonotonicNowNs();
  const TimeNs end_ns = mode.seconds == 0 ? UINT64_MAX : began_ns + Nanoseconds(mode.seconds);
  uint32_t fewest = swarm.established();
  while (MonotonicNowNs() < end_ns && !Interrupted()) {
    swarm.Run(std::min(end_ns, MonotonicNowNs() + 50 * kMillisecondNs));
    // Between a rekey's response and its first answer a client counts as not established.
    fewest = std::min(fewest, swarm.established() + swarm.handshaking());
    progress.Show("idle: " + Grouped(swarm.established()) + " established, " +
                  Grouped(static_cast<double>(swarm.tally().completed - before.completed)) +
                  " rekeys");
  }
  const double seconds = SecondsSince(began_ns);
  const auto cpu_after = Cpu(server);
  if (!cpu_after.ok()) return cpu_after.status();
  const auto memory_end = Memory(server);
  if (!memory_end.ok()) return memory_end.status();

  Json result;
  result["mode"] = "idle";
  result["clients"] = swarm.size();
  result["establishing"] = *established;
  result["seconds"] = seconds;
  result["established_at_end"] = swarm.established();
  result["fewest_established"] = fewest;
  result["rekeys"] = swarm.tally().completed - before.completed;
  result["rekey_latency_ms"] = LatenciesSince(swarm.tally(), before);
  result["counts"] = Difference(swarm.tally(), before);
  if (*memory_before) {
    result["memory"]["before"] = Describe(**memory_before);
    result["memory"]["established"] = Describe(**memory_after);
    result["memory"]["end"] = Describe(**memory_end);
    result["memory"]["bytes_per_client"] = (static_cast<double>((*memory_after)->resident_bytes) -
                                            static_cast<double>((*memory_before)->resident_bytes)) /
                                           swarm.size();
  }
  if (*cpu_after) {
    const CpuTimes spent = **cpu_after - **cpu_before;
    result["server_cpu"] = Describe(spent);
    result["server_cpu"]["percent_of_a_core"] = spent.total_s() / seconds * 100;
  }
  return result;
}

namespace {

// Sends for so long, and tries so many packets at least. Returns how many were sent.
uint64_t SendFor(Swarm& swarm, Traffic& traffic, const SendMode& mode, double seconds,
                 uint64_t tries_at_least, Progress& progress, const std::string& what) {
  const TimeNs end_ns = MonotonicNowNs() + Nanoseconds(seconds);
  std::optional<Metronome> metronome;
  if (mode.per_second > 0) metronome.emplace(mode.per_second);
  uint64_t sent = 0;
  uint64_t tried = 0;
  TimeNs now_ns = MonotonicNowNs();
  while ((now_ns < end_ns || tried < tries_at_least) && !Interrupted()) {
    const uint64_t due = metronome ? std::min<uint64_t>(metronome->Due(), mode.batch) : mode.batch;
    for (uint64_t i = 0; i < due; ++i) {
      const Traffic::Packet packet = traffic.Next();
      sent += swarm.SendInner(packet.client, packet.bytes, now_ns);
    }
    tried += due;
    if (metronome) metronome->Give(due);
    swarm.Run(metronome ? std::min(metronome->NextNs(), now_ns + kTurnNs) : 0);
    now_ns = MonotonicNowNs();
    progress.Show(what + ": " + Grouped(static_cast<double>(sent)) + " packets sent");
  }
  return sent;
}

absl::StatusOr<Json> MeasureCase(Swarm& swarm, const ServerProbe& server, const SendMode& mode,
                                 const SendCase& one, Progress& progress) {
  Traffic traffic({.active = one.active,
                   .flows = one.flows,
                   .inner_bytes = mode.inner_bytes,
                   .to = mode.to,
                   .pattern = mode.pattern});
  const std::string what = Grouped(one.active) + " clients, " + Grouped(one.flows) + " flows each";
  // What lanes and sessions take with their first packet is taken before the measurement.
  const uint64_t all_flows = uint64_t{one.active} * one.flows;
  const uint64_t warmed_up = SendFor(swarm, traffic, mode, mode.warmup_s,
                                     mode.warmup_s > 0 ? all_flows : 0, progress, what);
  swarm.Run(MonotonicNowNs() + kSettleNs);
  const auto counts_before = Counts(server);
  if (!counts_before.ok()) return counts_before.status();
  const auto cpu_before = Cpu(server);
  if (!cpu_before.ok()) return cpu_before.status();
  const uint64_t refused_before = swarm.refused_by_kernel();
  const TimeNs began_ns = MonotonicNowNs();
  const uint64_t sent = SendFor(swarm, traffic, mode, mode.seconds, 0, progress, what);
  const double seconds = SecondsSince(began_ns);
  swarm.Run(MonotonicNowNs() + kSettleNs);
  const auto cpu_after = Cpu(server);
  if (!cpu_after.ok()) return cpu_after.status();
  const auto counts_after = Counts(server);
  if (!counts_after.ok()) return counts_after.status();

  Json result;
  result["active"] = one.active;
  result["flows"] = one.flows;
  result["seconds"] = seconds;
  result["sent"] = sent;
  result["sent_before"] = warmed_up;
  result["sent_per_second"] = static_cast<double>(sent) / seconds;
  result["refused_by_kernel"] = swarm.refused_by_kernel() - refused_before;
  double accepted = 0;
  if (*counts_after) {
    const ServerCounts counts = **counts_after - **counts_before;
    accepted = static_cast<double>(counts.rx_packets);
    result["accepted"] = counts.rx_packets;
    result["accepted_per_second"] = accepted / seconds;
    result["server_drops"] = counts.drops;
  }
  if (*cpu_after) {
    const CpuTimes spent = **cpu_after - **cpu_before;
    result["server_cpu"] = Describe(spent);
    if (accepted > 0) result["worker_ns_per_packet"] = spent.workers_s / accepted * 1e9;
  }
  return result;
}

}  // namespace

absl::StatusOr<Json> RunSend(Swarm& swarm, const ServerProbe& server, const SendMode& mode) {
  Progress progress;
  auto established = EstablishAll(swarm, mode.pace, progress);
  if (!established.ok()) return established.status();
  Json result;
  result["mode"] = "send";
  result["clients"] = swarm.size();
  result["inner_bytes"] = mode.inner_bytes;
  result["establishing"] = *established;
  const Tally before = swarm.tally();
  result["cases"] = Json::array();
  for (int round = 0; round < mode.rounds; ++round) {
    for (const SendCase& one : mode.cases) {
      if (Interrupted()) break;
      auto measured = MeasureCase(swarm, server, mode, one, progress);
      if (!measured.ok()) return measured.status();
      (*measured)["round"] = round;
      result["cases"].push_back(*std::move(measured));
    }
  }
  result["established_at_end"] = swarm.established();
  result["counts"] = Difference(swarm.tally(), before);
  return result;
}

}  // namespace braid::swarm
