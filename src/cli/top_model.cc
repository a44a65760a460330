#include "cli/top_model.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "cli/json_fields.h"
#include "cli/text_layout.h"

namespace braid {
namespace {

using Json = nlohmann::ordered_json;

constexpr double kBitsPerMbit = 1e6;

std::optional<double> ToMbps(std::optional<double> bytes_per_s) {
  if (!bytes_per_s) return std::nullopt;
  return *bytes_per_s * 8 / kBitsPerMbit;
}

void AddTo(std::optional<double>& sum, const std::optional<double>& one) {
  if (one) sum = sum.value_or(0) + *one;
}

const Json& ListOf(const Json& object, const char* name) {
  static const Json kNone = Json::array();
  const Json& list = Field(object, name);
  return list.is_array() ? list : kNone;
}

void SetShares(std::vector<TopPath>& paths) {
  double sum = 0;
  for (const TopPath& path : paths) sum += path.rates.sum_mbps();
  if (sum <= 0) return;
  for (TopPath& path : paths) path.share = path.rates.sum_mbps() / sum;
}

}  // namespace

bool TopModel::HasRestarted(const Json& status) const {
  const auto uptime_s = Number(status, "uptime_s");
  return Number(status, "pid") != pid_before_ ||
         (uptime_s && uptime_before_s_ && *uptime_s < *uptime_before_s_);
}

// Of a counter, which goes down where what it counts has begun anew.
std::optional<double> TopModel::PerSecond(const Json& object, const char* field,
                                          const std::string& key) {
  const auto now = Number(object, field);
  if (!now) return std::nullopt;
  const std::string name = key + "/" + field;
  now_[name] = *now;
  const auto before = before_.find(name);
  if (before == before_.end() || seconds_ <= 0 || *now < before->second) return std::nullopt;
  return (*now - before->second) / seconds_;
}

TopRates TopModel::RatesOf(const Json& object, const std::string& key) {
  return {ToMbps(PerSecond(object, "rx_bytes", key)), ToMbps(PerSecond(object, "tx_bytes", key))};
}

TopPath TopModel::ReadPath(const Json& json, const std::string& peer_key) {
  TopPath path{.name = Text(json, "name"),
               .interface = Text(json, "interface"),
               .state = Text(json, "state"),
               .problem = Text(json, "problem"),
               .rtt_ms = Number(json, "rtt_ms"),
               .loss = Number(json, "loss"),
               .queue_ms = Number(Field(json, "sending"), "queue_ms")};
  path.rates = RatesOf(json, "path/" + peer_key + "/" + path.name);
  return path;
}

TopPeer TopModel::ReadPeer(const Json& json) {
  TopPeer peer{.name = Text(json, "name"),
               .key = Text(json, "public_key"),
               .established = IsTrue(json, "established"),
               .rx_bytes = Number(json, "rx_bytes"),
               .tx_bytes = Number(json, "tx_bytes")};
  if (peer.key.empty()) peer.key = peer.name;
  peer.rates = RatesOf(json, "peer/" + peer.key);
  for (const Json& path : ListOf(json, "paths")) peer.paths.push_back(ReadPath(path, peer.key));
  SetShares(peer.paths);
  return peer;
}

void TopModel::ReadDrops(const Json& drops, TimeNs now_ns) {
  if (!drops.is_object()) return;
  for (const auto& [name, count] : drops.items()) {
    const auto per_s = PerSecond(drops, name.c_str(), "drop");
    if (!per_s) continue;
    if (*per_s > 0) rose_ns_[name] = now_ns;
    const auto rose = rose_ns_.find(name);
    if (rose == rose_ns_.end() || now_ns - rose->second > kTopDropsShownFor) continue;
    state_.drops.push_back({Printable(name), *per_s, count.get<double>()});
  }
  std::stable_sort(state_.drops.begin(), state_.drops.end(),
                   [](const TopDrop& a, const TopDrop& b) { return a.per_s > b.per_s; });
}

void TopModel::Remember() {
  state_.history.push_back(state_.rates);
  if (state_.history.size() > kTopHistory) state_.history.pop_front();
}

void TopModel::Take(const Json& status, TimeNs now_ns) {
  before_ = std::exchange(now_, {});
  if (HasRestarted(status)) {
    before_.clear();
    rose_ns_.clear();
  }
  seconds_ = taken_ns_ == 0 ? 0 : static_cast<double>(now_ns - taken_ns_) / kSecondNs;
  taken_ns_ = now_ns;
  pid_before_ = Number(status, "pid");
  uptime_before_s_ = Number(status, "uptime_s");

  state_ = {.state = Text(status, "state"),
            .mode = Text(status, "mode"),
            .device = Text(status, "device"),
            .version = Text(status, "version"),
            .uptime_s = uptime_before_s_,
            .history = std::move(state_.history)};
  for (const Json& peer : ListOf(status, "peers")) {
    state_.peers.push_back(ReadPeer(peer));
    AddTo(state_.rates.rx_mbps, state_.peers.back().rates.rx_mbps);
    AddTo(state_.rates.tx_mbps, state_.peers.back().rates.tx_mbps);
  }
  for (const Json& worker : ListOf(status, "workers")) {
    const std::string key = "worker/" + std::to_string(state_.workers.size());
    state_.workers.push_back({.cpu = Number(worker, "cpu"),
                              .rx_packets_per_s = PerSecond(worker, "rx_packets", key),
                              .tx_packets_per_s = PerSecond(worker, "tx_packets", key),
                              .handed_over_per_s = PerSecond(worker, "handed_over", key)});
  }
  ReadDrops(Field(status, "drops"), now_ns);
  for (const Json& warning : ListOf(status, "warnings")) {
    if (warning.is_string()) state_.warnings.push_back(Printable(warning.get<std::string>()));
  }
  Remember();
}

// What was counted is kept: the daemon may have been too busy to answer.
void TopModel::Miss(std::string problem) {
  state_ = {.problem = Printable(std::move(problem)), .history = std::move(state_.history)};
  Remember();
}

void SortPeers(std::vector<TopPeer>& peers, TopSort sort) {
  const auto amount = [sort](const TopPeer& peer) {
    if (sort == TopSort::kRate) return peer.rates.sum_mbps();
    if (sort == TopSort::kBytes) return peer.rx_bytes.value_or(0) + peer.tx_bytes.value_or(0);
    return 0.0;
  };
  std::stable_sort(peers.begin(), peers.end(), [&](const TopPeer& a, const TopPeer& b) {
    const double of_a = amount(a), of_b = amount(b);
    return of_a != of_b ? of_a > of_b : a.name < b.name;
  });
}

}  // namespace braid
