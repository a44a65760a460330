#include "cli/path_view.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <sstream>

namespace braid::path_view_test {
namespace {

using Json = nlohmann::ordered_json;

TEST(RenderPaths, HasALineForEachPathAndPeerAndTellsWhatIsWrong) {
  const Json paths = Json::parse(R"({"paths": [
    {"id": 0, "name": "fibre", "interface": "eth0", "address": null, "endpoint": null,
     "from": "configuration", "open": true, "problem": null, "peers": [
       {"name": "hub", "state": "up", "remote": "198.51.100.1:7700", "rtt_ms": 8.1},
       {"name": "spare", "state": "down", "remote": null, "rtt_ms": null}]},
    {"id": 1, "name": "lte", "interface": "wwan0", "address": null, "endpoint": null,
     "from": "command", "open": false, "problem": "this machine has no interface \"wwan0\"",
     "peers": [{"name": "hub", "state": "down", "remote": null, "rtt_ms": null}]},
    {"id": 2, "name": "service", "interface": null, "address": "10.9.0.1", "endpoint": null,
     "from": "command", "open": true, "problem": null, "peers": []}],
    "problem": "interface \"eth9\" is no path"})");
  EXPECT_EQ(RenderPaths(paths),
            R"(path           from            peer           state    to
fibre          eth0            hub            up       198.51.100.1:7700
                               spare          down     -
lte            wwan0           hub            waits    -
    this machine has no interface "wwan0"
service        10.9.0.1        -              open     -
interface "eth9" is no path
)");
}

TEST(RenderPaths, NothingOfWhatItIsGivenSteersTheTerminalOrOverflowsIt) {
  Json path = {{"name", "\x1b[31m" + std::string(60, 'x')},
               {"interface", "eth0"},
               {"open", true},
               {"problem", std::string(100, 'y') + "\x07"},
               {"peers", {{{"name", std::string(60, 'p')}, {"state", "\n"}, {"remote", 7}}}}};
  const std::string text = RenderPaths({{"paths", {path, 7, nullptr}}});
  EXPECT_EQ(text.find('\x1b'), std::string::npos);
  EXPECT_EQ(text.find('\x07'), std::string::npos);
  std::istringstream lines(RenderPaths({{"paths", {path}}}));
  std::string line;
  std::getline(lines, line);
  std::getline(lines, line);
  EXPECT_LE(line.size(), 90u);
  EXPECT_EQ(RenderPaths(Json::parse("[]")),
            "path           from            peer           state    to\n");
}

}  // namespace
}  // namespace braid::path_view_test
