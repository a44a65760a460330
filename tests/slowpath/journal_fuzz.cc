// Journals that somebody else has written.
#include <cstdlib>
#include <string_view>

#include "slowpath/journal.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto journal = braid::ParseJournal({reinterpret_cast<const char*>(data), size});
  if (!journal.ok()) return 0;
  // What was understood is what is written again.
  const auto again = braid::ParseJournal(braid::RenderJournal(*journal));
  if (!again.ok() || !(*again == *journal)) std::abort();
  return 0;
}
