#include "slowpath/config_environment.h"

#include <unistd.h>

#include <algorithm>
#include <optional>
#include <string_view>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "slowpath/config_file.h"

namespace braid {
namespace {

using SortedJson = nlohmann::json;

constexpr std::string_view kPrefix = "BRAID_";
constexpr size_t kMaxIndexDigits = 6;

struct Override {
  std::string variable;
  std::string_view value;
  std::vector<std::string> steps;
};

bool IsConfiguration(std::string_view variable) {
  return variable.starts_with(kPrefix) && variable != "BRAID_VECTORS" &&
         !variable.starts_with("BRAID_TEST_");
}

bool IsIndex(std::string_view step) {
  return !step.empty() && step.size() <= kMaxIndexDigits &&
         std::all_of(step.begin(), step.end(), absl::ascii_isdigit);
}

// Element 2 before element 10, so that a list can be given one by one; a whole before its parts.
bool ComesBefore(const Override& left, const Override& right) {
  const auto step_before = [](const std::string& a, const std::string& b) {
    if (IsIndex(a) && IsIndex(b) && a.size() != b.size()) return a.size() < b.size();
    return a < b;
  };
  return std::lexicographical_compare(left.steps.begin(), left.steps.end(), right.steps.begin(),
                                      right.steps.end(), step_before);
}

class Overlay {
 public:
  Overlay(SortedJson& tree, Origins& origins, std::vector<Mistake>& mistakes)
      : tree_(tree), origins_(origins), mistakes_(mistakes) {}

  void Apply(const Override& from);

 private:
  SortedJson* Enter(SortedJson& value, const std::string& step, const Override& from);
  SortedJson* EnterList(SortedJson& list, const std::string& step, const Override& from);
  void Wrong(std::string what, const Override& from) {
    mistakes_.push_back({.pointer = here_, .what = std::move(what), .variable = from.variable});
  }

  SortedJson& tree_;
  Origins& origins_;
  std::vector<Mistake>& mistakes_;
  std::string here_;
};

SortedJson* Overlay::EnterList(SortedJson& list, const std::string& step, const Override& from) {
  size_t index = 0;
  if (!IsIndex(step) || !absl::SimpleAtoi(step, &index) || index > list.size()) {
    Wrong(absl::StrCat("is a list of ", list.size(), "; its elements are addressed by 0 to ",
                       list.size(), ", the last one being new"),
          from);
    return nullptr;
  }
  here_ += absl::StrCat("/", index);
  if (index == list.size()) {
    list.push_back(nullptr);
    origins_.Gave(here_, from.variable);
  }
  return &list[index];
}

SortedJson* Overlay::Enter(SortedJson& value, const std::string& step, const Override& from) {
  if (value.is_null()) value = IsIndex(step) ? SortedJson::array() : SortedJson::object();
  if (value.is_array()) return EnterList(value, step, from);
  if (!value.is_object()) {
    Wrong("is a single value; there is nothing inside it that could be set", from);
    return nullptr;
  }
  absl::StrAppend(&here_, "/", PointerStep(step));
  if (!value.contains(step)) origins_.Made(here_, from.variable);
  return &value[step];
}

void Overlay::Apply(const Override& from) {
  here_.clear();
  SortedJson* at = &tree_;
  for (const std::string& step : from.steps) {
    at = Enter(*at, step, from);
    if (at == nullptr) return;
  }
  origins_.Gave(here_, from.variable);
  if (!SortedJson::accept(from.value)) {
    *at = from.value;
    return;
  }
  std::vector<Mistake> mistakes;
  if (auto value = ParseJsonAt(from.value, here_, mistakes)) *at = std::move(*value);
  for (Mistake& mistake : mistakes) {
    mistake.variable = from.variable;
    mistakes_.push_back(std::move(mistake));
  }
}

std::optional<Override> ReadVariable(const std::string& variable, const std::string& value,
                                     std::vector<Mistake>& mistakes) {
  const auto wrong = [&](std::string what) {
    mistakes.push_back({.what = std::move(what), .variable = variable});
    return std::nullopt;
  };
  Override result{variable, value,
                  absl::StrSplit(absl::AsciiStrToLower(variable.substr(kPrefix.size())), "__")};
  const bool has_empty_step =
      std::any_of(result.steps.begin(), result.steps.end(),
                  [](const std::string& step) { return step.empty() || step.front() == '_'; });
  if (has_empty_step) return wrong("the variable's name is not of the form BRAID_SECTION__KEY");
  if (result.steps.size() > kMaxConfigDepth) return wrong("the variable's name has too many parts");
  if (value.size() > kMaxConfigBytes) return wrong("the variable's value is too large");
  if (!IsUtf8(value)) return wrong("the variable's value is not UTF-8");
  return result;
}

}  // namespace

std::string Origins::Find(std::string pointer) const {
  if (const auto made = made_.find(pointer); made != made_.end()) return made->second;
  while (!pointer.empty()) {
    if (const auto given = given_.find(pointer); given != given_.end()) return given->second;
    pointer.resize(pointer.rfind('/'));
  }
  return "";
}

void ApplyEnvironment(const Environment& environment, SortedJson& tree, Origins& origins,
                      std::vector<Mistake>& mistakes) {
  std::vector<Override> overrides;
  for (const auto& [variable, value] : environment) {
    if (!IsConfiguration(variable)) continue;
    if (auto read = ReadVariable(variable, value, mistakes)) overrides.push_back(std::move(*read));
  }
  std::stable_sort(overrides.begin(), overrides.end(), ComesBefore);
  Overlay overlay(tree, origins, mistakes);
  for (const Override& from : overrides) overlay.Apply(from);
}

Environment ProcessEnvironment() {
  Environment environment;
  for (char** entry = environ; entry != nullptr && *entry != nullptr; ++entry) {
    const std::pair<std::string, std::string> pair =
        absl::StrSplit(*entry, absl::MaxSplits('=', 1));
    environment.insert(pair);
  }
  return environment;
}

}  // namespace braid
