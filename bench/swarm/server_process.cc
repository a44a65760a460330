#include "server_process.h"

#include <dirent.h>
#include <unistd.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string_view>

#include "absl/cleanup/cleanup.h"
#include "slowpath/control_client.h"

namespace braid::swarm {
namespace {

constexpr std::string_view kWorkerName = "braid-worker";
constexpr double kNanosecond = 1e-9;

std::string ReadLine(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

// schedstat counts nanoseconds; a kernel without it still has ticks of ten milliseconds.
double ThreadSeconds(const std::string& folder) {
  const std::string schedstat = ReadLine(folder + "/schedstat");
  if (!schedstat.empty()) return std::strtod(schedstat.c_str(), nullptr) * kNanosecond;
  std::string stat = ReadLine(folder + "/stat");
  std::istringstream fields(stat.substr(stat.rfind(')') + 1));
  std::string skipped;
  for (int i = 0; i < 11; ++i) fields >> skipped;
  double user = 0;
  double system = 0;
  fields >> user >> system;
  return (user + system) / static_cast<double>(sysconf(_SC_CLK_TCK));
}

absl::Status NoProcess(pid_t pid) {
  return absl::NotFoundError("--server-pid: there is no process " + std::to_string(pid) +
                             ", or it may not be looked at");
}

}  // namespace

CpuTimes CpuTimes::operator-(const CpuTimes& before) const {
  CpuTimes spent = *this;
  spent.workers_s -= before.workers_s;
  spent.others_s -= before.others_s;
  for (const auto& [name, seconds] : before.by_thread_s) spent.by_thread_s[name] -= seconds;
  return spent;
}

absl::StatusOr<CpuTimes> ReadCpuTimes(pid_t pid) {
  const std::string tasks = "/proc/" + std::to_string(pid) + "/task";
  DIR* folder = opendir(tasks.c_str());
  if (folder == nullptr) return NoProcess(pid);
  const absl::Cleanup close_folder = [folder] { closedir(folder); };
  CpuTimes times;
  while (const dirent* entry = readdir(folder)) {
    if (entry->d_name[0] == '.') continue;
    const std::string task = tasks + "/" + entry->d_name;
    const std::string name = ReadLine(task + "/comm");
    if (name.empty()) continue;  // it has just ended
    const double seconds = ThreadSeconds(task);
    times.by_thread_s[name] += seconds;
    (std::string_view(name).starts_with(kWorkerName) ? times.workers_s : times.others_s) += seconds;
  }
  return times;
}

absl::StatusOr<MemoryUse> ReadMemoryUse(pid_t pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/smaps_rollup");
  MemoryUse use;
  for (std::string line; std::getline(file, line);) {
    std::istringstream fields(line);
    std::string name;
    uint64_t kilobytes = 0;
    if (!(fields >> name >> kilobytes)) continue;
    if (name == "Rss:") use.resident_bytes = kilobytes * 1024;
    if (name == "Pss:") use.proportional_bytes = kilobytes * 1024;
  }
  if (use.resident_bytes == 0) return NoProcess(pid);
  return use;
}

ServerCounts ServerCounts::operator-(const ServerCounts& before) const {
  ServerCounts counted = *this;
  counted.rx_packets -= before.rx_packets;
  for (const auto& [name, count] : before.drops) counted.drops[name] -= count;
  std::erase_if(counted.drops, [](const auto& drop) { return drop.second == 0; });
  return counted;
}

absl::StatusOr<ServerCounts> ReadServerCounts(const std::string& control_socket) {
  const auto reply = CallControl(control_socket, "status");
  if (!reply.ok()) return reply.status();
  const auto status = nlohmann::json::parse(*reply, nullptr, false);
  if (status.is_discarded()) return absl::InternalError("the server's status is no JSON");
  ServerCounts counts;
  for (const auto& peer : status.at("peers")) {
    counts.established += peer.at("established").get<bool>();
    counts.rx_packets += peer.at("rx_packets").get<uint64_t>();
  }
  for (const auto& [name, count] : status.at("drops").items()) {
    counts.drops[name] = count.get<uint64_t>();
  }
  return counts;
}

}  // namespace braid::swarm
