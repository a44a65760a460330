// Any bytes as the file of quotas: what is read of them is written and read as the same.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "slowpath/path_quota.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto quotas =
      braid::ParseQuotaText(std::string_view(reinterpret_cast<const char*>(data), size));
  if (quotas && braid::ParseQuotaText(braid::RenderQuotaText(*quotas)) != quotas) std::abort();
  return 0;
}
