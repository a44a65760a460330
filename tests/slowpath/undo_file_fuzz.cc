// Any bytes as the file of `braid tune --undo`, which root writes by it to /proc and /sys. No file
// is opened.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "slowpath/undo_file.h"

namespace braid {
namespace {

constexpr char kNetwork[] = "net:[1]";

void Require(bool condition) {
  if (!condition) std::abort();
}

void Check(std::string_view text) {
  const auto entries = ParseUndoText(text, kNetwork);
  if (!entries.ok()) return Require(!entries.status().message().empty());
  for (const UndoEntry& entry : *entries) {
    Require(IsTunable(entry.setting));
    Require(!entry.setting.Describe().empty());
  }
  // What was understood can be written again, and means the same.
  const auto again = ParseUndoText(RenderUndoText(*entries, kNetwork), kNetwork);
  Require(again.ok() && *again == *entries);
}

}  // namespace
}  // namespace braid

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace braid;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  Check(text);

  // As the list of changes in a file that is right about everything else.
  const std::string head = R"({"version":1,"network_namespace":"net:[1]","changes":[)";
  Check(head + std::string(text) + "]}");
  return 0;
}
