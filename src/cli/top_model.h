// What `braid top` shows: rates and changes, from the daemon's status now and the one before. No
// I/O and no clock of its own.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"

namespace braid {

// Nothing: not known, as at first, after a restart, or where a counter has begun anew.
struct TopRates {
  std::optional<double> rx_mbps;
  std::optional<double> tx_mbps;

  double sum_mbps() const { return rx_mbps.value_or(0) + tx_mbps.value_or(0); }
};

struct TopPath {
  std::string name, interface, state, problem;
  std::optional<double> rtt_ms, loss, queue_ms;
  TopRates rates;
  double share = 0;  // of what its peer's paths carry, both ways
};

struct TopPeer {
  std::string name;
  std::string key;  // names the peer while it stays; its public key
  bool established = false;
  TopRates rates;
  std::optional<double> rx_bytes, tx_bytes;
  std::vector<TopPath> paths;
};

struct TopWorker {
  std::optional<double> cpu, rx_packets_per_s, tx_packets_per_s, handed_over_per_s;
};

struct TopDrop {
  std::string name;
  double per_s = 0;
  double total = 0;  // since the daemon's start
};

struct TopState {
  std::string problem;  // why there is no answer; empty: all below is of now
  std::string state, mode, device, version;
  std::optional<double> uptime_s;
  TopRates rates;  // of all peers
  std::vector<TopPeer> peers;
  std::vector<TopWorker> workers;
  std::vector<TopDrop> drops;  // that rose within kTopDropsShownFor, the fastest first
  std::vector<std::string> warnings;
  std::deque<TopRates> history;  // of `rates`, the newest last; nothing where there was no answer
};

inline constexpr size_t kTopHistory = 600;
inline constexpr DurationNs kTopDropsShownFor = 30 * kSecondNs;

class TopModel {
 public:
  void Take(const nlohmann::ordered_json& status, TimeNs now_ns);
  void Miss(std::string problem);

  const TopState& state() const { return state_; }

 private:
  using Counters = std::map<std::string, double>;

  bool HasRestarted(const nlohmann::ordered_json& status) const;
  std::optional<double> PerSecond(const nlohmann::ordered_json& object, const char* field,
                                  const std::string& key);
  TopRates RatesOf(const nlohmann::ordered_json& object, const std::string& key);
  TopPeer ReadPeer(const nlohmann::ordered_json& peer);
  TopPath ReadPath(const nlohmann::ordered_json& path, const std::string& peer_key);
  void ReadDrops(const nlohmann::ordered_json& drops, TimeNs now_ns);
  void Remember();

  TopState state_;
  Counters before_, now_;  // by "kind/key/field"
  std::optional<double> pid_before_, uptime_before_s_;
  double seconds_ = 0;                     // between the two; 0: there is none before
  TimeNs taken_ns_ = 0;                    // 0: never
  std::map<std::string, TimeNs> rose_ns_;  // when a drop counter last rose
};

// Orders of peers, which names break ties of.
enum class TopSort : uint8_t { kRate, kBytes, kName };
inline constexpr const char* kTopSortNames[] = {"rate", "bytes", "name"};
void SortPeers(std::vector<TopPeer>& peers, TopSort sort);

}  // namespace braid
