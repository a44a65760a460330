#include "cli/drop_meaning.h"

#include "base/counters.h"

namespace braid {

std::string DropMeaning(std::string_view name) {
#define X(reason, meaning) \
  if (name == #reason) return meaning;
  BRAID_DROP_REASONS(X)
#undef X
  return "";
}

}  // namespace braid
