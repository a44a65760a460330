#include "cli/tune_view.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <sstream>

#include "cli/text_layout.h"

namespace braid::tune_view_test {
namespace {

using Outcome = ChangeResult::Outcome;
using Verdict = Finding::Verdict;

const Setting kUso{Setting::Kind::kFeature, "eth0", "tx-udp-segmentation"};

TuneReport Report() {
  TuneReport report;
  report.layout = {{0, 1}, "one for each of 2 cores"};
  report.links = {{"eth0", "default route"}};
  report.findings = {
      {.group = TuneGroup::kCpu, .name = "cores", .now = "2 cores, 2 CPUs"},
      {.group = TuneGroup::kPower,
       .name = "governor",
       .verdict = Verdict::kCosts,
       .now = "powersave",
       .better = "performance",
       .why = "a worker that slept begins at a low clock rate; takes more power",
       .changes = {{FileSetting("/sys/devices/system/cpu/cpufreq/policy0/scaling_governor"),
                    "performance"}}},
      {.group = TuneGroup::kNetDevice,
       .device = "eth0",
       .name = "tx-udp-segmentation",
       .verdict = Verdict::kCosts,
       .now = "off",
       .better = "on",
       .why = "the kernel cuts trains that the device could cut",
       .changes = {{kUso, "on"}}},
      {.group = TuneGroup::kNetCore,
       .name = "netdev_max_backlog",
       .verdict = Verdict::kCosts,
       .now = "1000",
       .better = "8192",
       .why = "31 packets were dropped there",
       .seen_here = true},
      {.group = TuneGroup::kNetCore,
       .name = "rmem_max",
       .verdict = Verdict::kUnknown,
       .why = "/proc/sys/net/core/rmem_max: No such file or directory"},
  };
  return report;
}

TEST(TuneView, IsReadAtAGlance) {
  EXPECT_EQ(RenderTuneReport(Report(), false),
            R"(workers     2, on CPUs 0 1: one for each of 2 cores
interfaces  eth0 (default route)

cpu
  ok      cores                 2 cores, 2 CPUs

power
  costs   governor              powersave → performance
                                as a rule: a worker that slept begins at a low
                                clock rate; takes more power

net-device eth0 (default route)
  costs   tx-udp-segmentation   off → on
                                as a rule: the kernel cuts trains that the
                                device could cut

net-core
  costs   netdev_max_backlog    1000 → 8192
                                seen here: 31 packets were dropped there
  ?       rmem_max              /proc/sys/net/core/rmem_max: No such file or
                                directory

3 cost throughput; 1 can be set: braid tune --apply; 1 about power with --apply
--power; 1 cannot be told
)");
}

TEST(TuneView, ColoursChangeNoWord) {
  std::string coloured = RenderTuneReport(Report(), true);
  EXPECT_NE(coloured.find("\x1b[31mcosts\x1b[0m"), std::string::npos);
  for (size_t at; (at = coloured.find('\x1b')) != std::string::npos;) {
    coloured.erase(at, coloured.find('m', at) - at + 1);
  }
  EXPECT_EQ(coloured, RenderTuneReport(Report(), false));
}

TEST(TuneView, NoTextFromTheMachineSteersTheTerminal) {
  TuneReport report = Report();
  report.findings[0].now = "\x1b[2Jcleared";
  report.links[0].why = "\x1b]0;title";
  EXPECT_EQ(RenderTuneReport(report, false).find('\x1b'), std::string::npos);
}

TEST(TuneView, AMachineWithoutInterfacesIsToldHow) {
  EXPECT_NE(RenderTuneReport({}, false).find("--interface"), std::string::npos);
}

TEST(TuneView, ProgramsGetAllOfIt) {
  const auto json = DescribeTuneReport(Report());
  EXPECT_EQ(json["workers"], nlohmann::ordered_json::parse(
                                 R"({"count": 2, "cpus": [0, 1], "reason":
                                     "one for each of 2 cores"})"));
  ASSERT_EQ(json["findings"].size(), 5u);
  EXPECT_EQ(json["findings"][2], nlohmann::ordered_json::parse(R"({
      "group": "net-device", "device": "eth0", "name": "tx-udp-segmentation", "status": "costs",
      "now": "off", "why": "the kernel cuts trains that the device could cut", "better": "on",
      "sure": "as a rule", "changes": [{"setting": "eth0 tx-udp-segmentation", "kind": "offload",
      "device": "eth0", "name": "tx-udp-segmentation", "value": "on"}]})"));
  EXPECT_EQ(json["findings"][4]["status"], "cannot tell");
  EXPECT_TRUE(json["findings"][4]["now"].is_null());
}

TEST(TuneView, EachChangeHasItsLine) {
  const std::vector<ChangeResult> results = {
      {kUso, "off", "on", Outcome::kDone, ""},
      {FileSetting("/proc/sys/net/core/rmem_max"), "1", "2", Outcome::kFailed, "not permitted"},
      {FileSetting("/proc/sys/net/core/wmem_max"), "7", "2", Outcome::kForeign, ""},
  };
  EXPECT_EQ(RenderChanges(results, false),
            R"(  done    eth0 tx-udp-segmentation  off → on
  failed  net.core.rmem_max  1 → 2
          not permitted
  left    net.core.wmem_max  7 → 2
          somebody else has set it since; it is left as it is
1 changed, 1 failed
)");
  EXPECT_EQ(DescribeChanges(results)[1]["outcome"], "failed");
}

}  // namespace
}  // namespace braid::tune_view_test
