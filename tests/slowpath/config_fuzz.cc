// Any bytes as JSON and as YAML, through the parsers and the validator. No file is opened.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "slowpath/config.h"

namespace braid {
namespace {

void Require(bool condition) {
  if (!condition) std::abort();
}

void Check(std::string_view text, ConfigFormat format, const Environment& environment) {
  const LoadedConfig loaded = ParseConfig(text, format, "/etc/braid", environment);
  Require(loaded.config.has_value() == loaded.mistakes.empty());
  for (const Mistake& mistake : loaded.mistakes) {
    Require(mistake.pointer.empty() || mistake.pointer.front() == '/');
    Require(!mistake.what.empty());
    Require(mistake.pointer.empty() || mistake.line == 0);
    (void)DescribeMistake("fuzz", mistake);
  }
}

}  // namespace
}  // namespace braid

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace braid;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  Check(text, ConfigFormat::kJson, {});
  Check(text, ConfigFormat::kYaml, {});

  // The first line as the value of a variable, the rest as the file.
  const size_t newline = text.find('\n');
  if (newline == std::string_view::npos) return 0;
  const Environment environment = {
      {"BRAID_TUNNEL__PEERS__0", std::string(text.substr(0, newline))}};
  Check(text.substr(newline + 1), ConfigFormat::kJson, environment);
  return 0;
}
