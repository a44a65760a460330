#include "slowpath/config_node.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "slowpath/config_file.h"

namespace braid {
namespace {

using SortedJson = nlohmann::json;

constexpr size_t kMaxQuotedBytes = 64;

const SortedJson kNothing;

std::string Show(const SortedJson& value) {
  if (value.is_null()) return "empty";
  if (value.is_array()) return "a list";
  if (value.is_object()) return "a section";
  if (value.is_string())
    return absl::StrCat("the text ", Quote(value.get_ref<const std::string&>()));
  return value.dump();
}

std::string QuoteAll(std::span<const std::string_view> names) {
  return absl::StrJoin(names, ", ",
                       [](std::string* out, std::string_view name) { *out += Quote(name); });
}

// Levenshtein's distance.
size_t EditDistance(std::string_view left, std::string_view right) {
  std::vector<size_t> row(right.size() + 1);
  std::iota(row.begin(), row.end(), 0);
  for (size_t i = 0; i < left.size(); ++i) {
    size_t diagonal = std::exchange(row[0], i + 1);
    for (size_t j = 0; j < right.size(); ++j) {
      const size_t replaced = diagonal + (left[i] == right[j] ? 0 : 1);
      diagonal = row[j + 1];
      row[j + 1] = std::min({replaced, diagonal + 1, row[j] + 1});
    }
  }
  return row.back();
}

// The name that was probably meant; nothing when none is like it.
std::optional<std::string_view> Nearest(std::string_view key,
                                        std::span<const std::string_view> names) {
  if (key.size() > kMaxQuotedBytes) return std::nullopt;
  std::optional<std::string_view> nearest;
  size_t nearest_distance = std::max<size_t>(2, key.size() / 2) + 1;
  const std::string lower_case = absl::AsciiStrToLower(std::string(key));
  for (const std::string_view name : names) {
    const size_t distance = EditDistance(lower_case, name);
    if (distance >= std::min(nearest_distance, name.size())) continue;
    nearest = name;
    nearest_distance = distance;
  }
  return nearest;
}

bool HasControlCharacter(std::string_view text) {
  return std::any_of(text.begin(), text.end(), absl::ascii_iscntrl);
}

}  // namespace

std::string Quote(std::string_view text) {
  const bool is_long = text.size() > kMaxQuotedBytes;
  const std::string shown(text.substr(0, kMaxQuotedBytes));
  return absl::StrCat("\"", absl::Utf8SafeCHexEscape(shown), is_long ? "...\"" : "\"");
}

void Report::Wrong(const std::string& pointer, std::string what) {
  if (loaded_.mistakes.size() > kMaxConfigMistakes) return;
  if (loaded_.mistakes.size() == kMaxConfigMistakes) {
    loaded_.mistakes.push_back({.what = "has more mistakes than these"});
    return;
  }
  loaded_.mistakes.push_back(
      {.pointer = pointer, .what = std::move(what), .variable = origins_.Find(pointer)});
}

void Report::Warn(const std::string& pointer, std::string what) {
  if (loaded_.warnings.size() >= kMaxConfigMistakes) return;
  loaded_.warnings.push_back(
      {.pointer = pointer, .what = std::move(what), .variable = origins_.Find(pointer)});
}

void Report::KeyFile(const std::string& pointer, const std::string& path) {
  loaded_.key_files.push_back({pointer, origins_.Find(pointer), path});
}

void Report::HttpFile(const std::string& pointer, const std::string& path,
                      const std::string& certificate_path) {
  loaded_.http_files.push_back({pointer, origins_.Find(pointer), path, certificate_path});
}

void Report::PasswordFile(const std::string& pointer, const std::string& path) {
  loaded_.password_files.push_back({pointer, origins_.Find(pointer), path});
}

void Node::MustBe(const std::string& what) const {
  Wrong(absl::StrCat("must be ", what, ", but is ", Show(*value_)));
}

std::optional<std::string> Node::Text() const {
  if (!value_->is_string()) {
    const bool quotes_help = value_->is_number() || value_->is_boolean();
    MustBe(quotes_help ? "text (put it in quotes)" : "text");
    return std::nullopt;
  }
  const auto& text = value_->get_ref<const std::string&>();
  if (text.empty()) {
    Wrong("must not be empty");
    return std::nullopt;
  }
  if (HasControlCharacter(text)) {
    Wrong("must not hold control characters, such as a line break");
    return std::nullopt;
  }
  return text;
}

std::optional<uint64_t> Node::Integer(uint64_t min, uint64_t max) const {
  if (value_->is_number_unsigned()) {
    const uint64_t number = value_->get<uint64_t>();
    if (number >= min && number <= max) return number;
  }
  MustBe(absl::StrCat("a whole number from ", min, " to ", max));
  return std::nullopt;
}

std::optional<double> Node::Number(double min, double max) const {
  if (value_->is_number()) {
    const double number = value_->get<double>();
    if (number >= min && number <= max) return number;
  }
  MustBe(absl::StrCat("a number from ", min, " to ", max));
  return std::nullopt;
}

std::optional<bool> Node::Boolean() const {
  if (value_->is_boolean()) return value_->get<bool>();
  MustBe("true or false");
  return std::nullopt;
}

std::optional<size_t> Node::OneOf(std::span<const std::string_view> names) const {
  const auto found =
      std::find_if(names.begin(), names.end(), [this](std::string_view name) { return Is(name); });
  if (found != names.end()) return found - names.begin();
  MustBe(absl::StrCat(names.size() > 1 ? "one of " : "", QuoteAll(names)));
  return std::nullopt;
}

std::vector<Node> Node::List(size_t min, size_t max) const {
  std::vector<Node> elements;
  if (!value_->is_array()) {
    MustBe("a list");
  } else if (value_->size() > max) {
    Wrong(absl::StrCat("has ", value_->size(), " elements; at most ", max, " are allowed"));
  } else if (value_->size() < min) {
    Wrong(min == 1 ? "must have at least one element"
                   : absl::StrCat("must have at least ", min, " elements"));
  } else {
    for (const SortedJson& element : *value_) {
      elements.emplace_back(element, absl::StrCat(pointer_, "/", elements.size()), *report_);
    }
  }
  return elements;
}

Section::Section(const Node& node, std::initializer_list<std::string_view> known) : node_(node) {
  if (node.value().is_object()) {
    ReportUnknown(known);
  } else if (&node.value() != &kNothing) {
    node.Wrong(absl::StrCat("must be a section of keys and values, but is ", Show(node.value())));
    is_broken_ = true;
  }
}

Section Section::Sub(std::string_view key, std::initializer_list<std::string_view> known) const {
  Section section(Find(key).value_or(Node(kNothing, PointerOf(key), node_.report())), known);
  section.is_broken_ |= is_broken_;
  return section;
}

std::string Section::PointerOf(std::string_view key) const {
  return node_.pointer() + "/" + PointerStep(key);
}

void Section::ReportUnknown(std::initializer_list<std::string_view> known) const {
  const std::span<const std::string_view> names(known.begin(), known.size());
  for (const auto& [key, value] : node_.value().items()) {
    if (std::find(names.begin(), names.end(), key) != names.end()) continue;
    const auto nearest = Nearest(key, names);
    Wrong(key, nearest ? absl::StrCat("is not a known key; did you mean ", Quote(*nearest), "?")
                       : absl::StrCat("is not a known key; known here: ", QuoteAll(names)));
  }
}

std::optional<Node> Section::Find(std::string_view key) const {
  if (!node_.value().is_object()) return std::nullopt;
  const auto found = node_.value().find(key);
  if (found == node_.value().end()) return std::nullopt;
  return Node(*found, PointerOf(key), node_.report());
}

std::optional<Node> Section::Need(std::string_view key, const std::string& hint) const {
  const auto node = Find(key);
  if (!node && !is_broken_) Wrong(key, absl::StrCat("is missing; write ", hint));
  return node;
}

void Section::Wrong(std::string_view key, std::string what) const {
  node_.report().Wrong(PointerOf(key), std::move(what));
}

void Section::Text(std::string_view key, std::string& to) const {
  const auto node = Find(key);
  if (const auto text = node ? node->Text() : std::nullopt) to = *text;
}

void Section::Boolean(std::string_view key, bool& to) const {
  const auto node = Find(key);
  if (const auto value = node ? node->Boolean() : std::nullopt) to = *value;
}

void Section::Name(std::string_view key, std::span<const std::string_view> names,
                   std::string& to) const {
  const auto node = Find(key);
  if (const auto index = node ? node->OneOf(names) : std::nullopt) to = names[*index];
}

}  // namespace braid
