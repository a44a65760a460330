// Lines and datagrams of a measurement, from a peer that means no good.
#include <cstdlib>
#include <string_view>

#include "slowpath/measure_protocol.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace braid;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  if (const auto line = ParseMeasureLine(text); line.ok()) {
    // What was understood can be said again, and means the same.
    const std::string again = RenderMeasureLine(*line);
    const auto read = ParseMeasureLine(std::string_view(again).substr(0, again.size() - 1));
    if (again.size() <= kMaxMeasureLineBytes + 1 && (!read.ok() || !(*read == *line))) abort();
  }
  (void)ReadMeasureDatagram({data, size});
  return 0;
}
