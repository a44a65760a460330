#include "slowpath/process_usage.h"

#include <sys/resource.h>
#include <unistd.h>

#include <string>
#include <string_view>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"

namespace braid {
namespace {

// Of /proc/PID/stat, counted from behind the name: that may hold spaces and parentheses.
enum StatField : size_t { kUserTicks = 11, kSystemTicks = 12, kStartTicks = 19, kVirtual, kPages };

uint64_t Number(const std::vector<std::string>& fields, size_t field) {
  uint64_t number = 0;
  return field < fields.size() && absl::SimpleAtoi(fields[field], &number) ? number : 0;
}

std::vector<std::string> FieldsOf(const HostFiles& files) {
  const auto stat = files.Read("/proc/self/stat");
  const size_t name_end = stat.ok() ? stat->rfind(") ") : std::string::npos;
  if (name_end == std::string::npos) return {};
  return absl::StrSplit(stat->substr(name_end + 2), ' ');
}

// Since 1970; 0 where it is not told.
uint64_t BootedAt(const HostFiles& files) {
  const auto stat = files.Read("/proc/stat");
  if (!stat.ok()) return 0;
  for (const std::string& line : std::vector<std::string>(absl::StrSplit(*stat, '\n'))) {
    const std::vector<std::string> fields = absl::StrSplit(line, ' ');
    if (fields[0] == "btime") return Number(fields, 1);
  }
  return 0;
}

uint64_t ResidentBytesIn(const std::vector<std::string>& fields) {
  return Number(fields, kPages) * static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
}

}  // namespace

uint64_t ResidentBytes(const HostFiles& files) { return ResidentBytesIn(FieldsOf(files)); }

OpenFiles OpenFilesOfThisProcess(const HostFiles& files) {
  OpenFiles open{.now = files.List("/proc/self/fd").size()};
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) == 0) open.most = limit.rlim_cur;
  return open;
}

ProcessUsage UsageOfThisProcess(const HostFiles& files) {
  const auto ticks_per_s = static_cast<uint64_t>(sysconf(_SC_CLK_TCK));
  const std::vector<std::string> fields = FieldsOf(files);
  ProcessUsage usage;
  usage.resident_bytes = ResidentBytesIn(fields);
  usage.virtual_bytes = Number(fields, kVirtual);
  usage.cpu_ns =
      (Number(fields, kUserTicks) + Number(fields, kSystemTicks)) * (kSecondNs / ticks_per_s);
  if (const uint64_t booted_s = BootedAt(files); booted_s != 0) {
    usage.started_s =
        static_cast<double>(booted_s) +
        static_cast<double>(Number(fields, kStartTicks)) / static_cast<double>(ticks_per_s);
  }
  const OpenFiles open = OpenFilesOfThisProcess(files);
  usage.open_files = open.now;
  usage.most_files = open.most;
  return usage;
}

}  // namespace braid
