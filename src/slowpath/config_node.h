// Reads values out of a configuration's tree as what they have to be, and reports in plain words
// those that are something else.
//
// Sections and nodes borrow the tree and the report.
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "slowpath/config.h"
#include "slowpath/config_environment.h"

namespace braid {

// In double quotes, cut when it is long, with nothing in it that would upset a terminal.
std::string Quote(std::string_view text);

class Report {
 public:
  Report(const Origins& origins, LoadedConfig& loaded) : origins_(origins), loaded_(loaded) {}
  void Wrong(const std::string& pointer, std::string what);
  void Warn(const std::string& pointer, std::string what);
  void KeyFile(const std::string& pointer, const std::string& path);
  // `certificate_path` is empty where the file is a token's.
  void HttpFile(const std::string& pointer, const std::string& path,
                const std::string& certificate_path);
  void PasswordFile(const std::string& pointer, const std::string& path);

 private:
  const Origins& origins_;
  LoadedConfig& loaded_;
};

// One value and the place where it stands. The readers give nothing after reporting a mistake.
class Node {
 public:
  Node(const nlohmann::json& value, std::string pointer, Report& report)
      : value_(&value), pointer_(std::move(pointer)), report_(&report) {}

  std::optional<std::string> Text() const;  // not empty, no control characters
  std::optional<uint64_t> Integer(uint64_t min, uint64_t max) const;
  std::optional<double> Number(double min, double max) const;
  std::optional<bool> Boolean() const;
  // The position among `names`.
  std::optional<size_t> OneOf(std::span<const std::string_view> names) const;
  // The elements; none after a mistake.
  std::vector<Node> List(size_t min, size_t max) const;

  bool Is(std::string_view text) const { return *value_ == text; }
  void Wrong(std::string what) const { report_->Wrong(pointer_, std::move(what)); }
  void Warn(std::string what) const { report_->Warn(pointer_, std::move(what)); }

  const nlohmann::json& value() const { return *value_; }
  const std::string& pointer() const { return pointer_; }
  Report& report() const { return *report_; }

 private:
  void MustBe(const std::string& what) const;

  const nlohmann::json* value_;
  std::string pointer_;
  Report* report_;
};

// A value that has named members. Making one reports the members that are not among `known`.
class Section {
 public:
  Section(const Node& node, std::initializer_list<std::string_view> known);
  // A member that may be missing: a section with nothing in it then.
  Section Sub(std::string_view key, std::initializer_list<std::string_view> known) const;

  std::optional<Node> Find(std::string_view key) const;
  // As Find; a missing member is a mistake, and `hint` says what to write.
  std::optional<Node> Need(std::string_view key, const std::string& hint) const;
  // Reports `key` where it would stand.
  void Wrong(std::string_view key, std::string what) const;

  // These leave `to` alone when the member is missing or wrong.
  void Text(std::string_view key, std::string& to) const;
  void Boolean(std::string_view key, bool& to) const;
  void Name(std::string_view key, std::span<const std::string_view> names, std::string& to) const;
  template <typename T>
  void Integer(std::string_view key, uint64_t min, uint64_t max, T& to) const {
    const auto node = Find(key);
    if (const auto value = node ? node->Integer(min, max) : std::nullopt) to = T(*value);
  }
  // The enumerators count from 0 in the order of `names`.
  template <typename Enum>
  void Choice(std::string_view key, std::span<const std::string_view> names, Enum& to) const {
    const auto node = Find(key);
    if (const auto index = node ? node->OneOf(names) : std::nullopt) to = Enum(*index);
  }

  const std::string& pointer() const { return node_.pointer(); }

 private:
  void ReportUnknown(std::initializer_list<std::string_view> known) const;
  std::string PointerOf(std::string_view key) const;

  Node node_;  // an object, or null when there is no such section or it was reported
  bool is_broken_ = false;
};

}  // namespace braid
