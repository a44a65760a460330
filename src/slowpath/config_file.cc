#include "slowpath/config_file.h"

#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/mark.h>
#include <yaml-cpp/parser.h>

#include <algorithm>
#include <exception>
#include <map>
#include <sstream>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"

namespace braid {
namespace {

using SortedJson = nlohmann::json;

constexpr size_t kMaxStepBytes = 64;

// A value with all that is under it.
struct Subtree {
  SortedJson value;
  size_t weight = 1;
  size_t depth = 0;  // levels under it
};

Subtree Leaf(SortedJson value) {
  const size_t bytes = value.is_string() ? value.get_ref<const std::string&>().size() : 0;
  return {std::move(value), 1 + bytes, 0};
}

// Puts the tree together from the events of either parser. A function that returns false has noted
// why, and building is over.
class TreeBuilder {
 public:
  TreeBuilder(std::string pointer, std::vector<Mistake>& mistakes)
      : pointer_(std::move(pointer)), mistakes_(mistakes) {}

  bool Open(SortedJson empty_container);
  // Takes the innermost container out, to be added where it belongs.
  Subtree Close();
  bool Add(Subtree subtree);
  bool SetKey(std::string key);
  // Accounts for memory that is held beside the tree.
  bool AddWeight(size_t weight);
  bool Stop(std::string what);

  bool expects_key() const { return !open_.empty() && open_.back().expects_key; }
  SortedJson& root() { return root_; }

 private:
  struct Container {
    Subtree subtree;
    std::string key;  // of the member that comes next
    bool expects_key = false;
  };

  std::string Here() const;

  const std::string pointer_;
  std::vector<Mistake>& mistakes_;
  SortedJson root_;
  std::vector<Container> open_;
  size_t weight_ = 0;
};

std::string TreeBuilder::Here() const {
  std::string here = pointer_;
  for (const Container& container : open_) {
    if (container.expects_key) break;
    const SortedJson& value = container.subtree.value;
    absl::StrAppend(&here, "/",
                    value.is_array() ? std::to_string(value.size()) : PointerStep(container.key));
  }
  return here;
}

bool TreeBuilder::Stop(std::string what) {
  mistakes_.push_back({.pointer = Here(), .what = std::move(what)});
  return false;
}

bool TreeBuilder::AddWeight(size_t weight) {
  weight_ += weight;
  return weight_ <= kMaxConfigWeight || Stop("the configuration is too large from here on");
}

bool TreeBuilder::Open(SortedJson empty_container) {
  if (expects_key()) return Stop("a key must be text, not a list or a section");
  if (open_.size() >= kMaxConfigDepth) {
    return Stop(absl::StrCat("is nested more than ", kMaxConfigDepth, " levels deep"));
  }
  const bool is_object = empty_container.is_object();
  open_.push_back({Leaf(std::move(empty_container)), "", is_object});
  return AddWeight(1);
}

Subtree TreeBuilder::Close() {
  Subtree subtree = std::move(open_.back().subtree);
  open_.pop_back();
  weight_ -= subtree.weight;
  return subtree;
}

bool TreeBuilder::SetKey(std::string key) {
  Container& object = open_.back();
  object.key = std::move(key);
  object.expects_key = false;
  object.subtree.weight += object.key.size();
  if (!AddWeight(object.key.size())) return false;
  if (!object.subtree.value.contains(object.key)) return true;
  Stop("is given twice");
  return mistakes_.size() < kMaxConfigMistakes;
}

bool TreeBuilder::Add(Subtree subtree) {
  if (expects_key()) {
    if (!subtree.value.is_string()) return Stop("a key must be text");
    return SetKey(subtree.value.get<std::string>());
  }
  if (open_.size() + subtree.depth > kMaxConfigDepth) {
    return Stop(absl::StrCat("is nested more than ", kMaxConfigDepth, " levels deep"));
  }
  if (!AddWeight(subtree.weight)) return false;
  if (open_.empty()) {
    root_ = std::move(subtree.value);
    return true;
  }
  Container& parent = open_.back();
  parent.subtree.weight += subtree.weight;
  parent.subtree.depth = std::max(parent.subtree.depth, subtree.depth + 1);
  if (parent.subtree.value.is_array()) {
    parent.subtree.value.push_back(std::move(subtree.value));
  } else {
    parent.subtree.value[parent.key] = std::move(subtree.value);
    parent.expects_key = true;
  }
  return true;
}

// ---- JSON

// The parser's own text without its prefix and without the characters it stumbled over, which may
// be part of a secret in the wrong file.
std::string JsonErrorText(std::string_view text) {
  const size_t place = text.find(", column ");
  const size_t colon = text.find(": ", place == std::string_view::npos ? 0 : place);
  if (colon != std::string_view::npos) text.remove_prefix(colon + 2);
  const size_t read = text.find("; last read: '");
  if (read == std::string_view::npos) return std::string(text);
  const size_t expected = text.rfind("; expected ");
  const bool tells_more = expected != std::string_view::npos && expected > read;
  std::string kept(text.substr(0, read));
  if (tells_more) kept += text.substr(expected);
  return kept;
}

class JsonEvents final : public nlohmann::json_sax<SortedJson> {
 public:
  JsonEvents(std::string_view text, TreeBuilder& builder, std::vector<Mistake>& mistakes)
      : text_(text), builder_(builder), mistakes_(mistakes) {}

  bool null() override { return builder_.Add(Leaf(nullptr)); }
  bool boolean(bool value) override { return builder_.Add(Leaf(value)); }
  bool number_integer(int64_t value) override { return builder_.Add(Leaf(value)); }
  bool number_unsigned(uint64_t value) override { return builder_.Add(Leaf(value)); }
  bool number_float(double value, const std::string&) override { return builder_.Add(Leaf(value)); }
  bool string(std::string& value) override { return builder_.Add(Leaf(std::move(value))); }
  bool binary(SortedJson::binary_t&) override { return false; }
  bool start_object(size_t) override { return builder_.Open(SortedJson::object()); }
  bool key(std::string& value) override { return builder_.SetKey(std::move(value)); }
  bool end_object() override { return builder_.Add(builder_.Close()); }
  bool start_array(size_t) override { return builder_.Open(SortedJson::array()); }
  bool end_array() override { return builder_.Add(builder_.Close()); }

  bool parse_error(size_t position, const std::string&,
                   const SortedJson::exception& error) override {
    const std::string_view before = text_.substr(0, position > 0 ? position - 1 : 0);
    const size_t newline = before.rfind('\n');
    const size_t line_start = newline == std::string_view::npos ? 0 : newline + 1;
    mistakes_.push_back(
        {.what = JsonErrorText(error.what()),
         .line = static_cast<int>(std::count(before.begin(), before.end(), '\n')) + 1,
         .column = static_cast<int>(before.size() - line_start) + 1});
    return false;
  }

 private:
  const std::string_view text_;
  TreeBuilder& builder_;
  std::vector<Mistake>& mistakes_;
};

// ---- YAML

SortedJson PlainScalar(const std::string& text) {
  if (text == "true" || text == "True" || text == "TRUE") return true;
  if (text == "false" || text == "False" || text == "FALSE") return false;
  const bool may_be_number =
      !text.empty() && text.find_first_not_of("0123456789+-.eE") == std::string::npos;
  if (may_be_number && SortedJson::accept(text)) return SortedJson::parse(text);
  return text;
}

class YamlEvents final : public YAML::EventHandler {
 public:
  struct Stopped {};  // thrown, since the parser knows no other way out

  explicit YamlEvents(TreeBuilder& builder) : builder_(builder) {}

  void OnDocumentStart(const YAML::Mark& mark) override {
    mark_ = mark;
    Demand(++documents_ == 1 || builder_.Stop("the file holds more than one document"));
  }
  void OnDocumentEnd() override {}

  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    mark_ = mark;
    Add(Leaf(nullptr), anchor);
  }

  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& text) override {
    mark_ = mark;
    const bool plain = tag == "?" || tag.empty();
    Demand(plain || tag == "!" || tag == "tag:yaml.org,2002:str" || RefuseTag());
    Demand(IsUtf8(text) || builder_.Stop("is not UTF-8"));
    Add(Leaf(plain && !builder_.expects_key() ? PlainScalar(text) : SortedJson(text)), anchor);
  }

  void OnAlias(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    mark_ = mark;
    const auto found = anchored_.find(anchor);
    Demand(found != anchored_.end() || builder_.Stop("the alias stands inside what it names"));
    Demand(builder_.Add(found->second));
  }

  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    mark_ = mark;
    Open(SortedJson::array(), tag, anchor);
  }
  void OnSequenceEnd() override { Close(); }
  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    mark_ = mark;
    Open(SortedJson::object(), tag, anchor);
  }
  void OnMapEnd() override { Close(); }

  const YAML::Mark& mark() const { return mark_; }  // of the newest event

 private:
  static void Demand(bool go_on) {
    if (!go_on) throw Stopped();
  }

  bool RefuseTag() { return builder_.Stop("has a tag (!); leave the tag out"); }

  void Open(SortedJson empty_container, const std::string& tag, YAML::anchor_t anchor) {
    Demand(tag.empty() || tag == "?" || tag == "!" || RefuseTag());
    Demand(builder_.Open(std::move(empty_container)));
    anchors_.push_back(anchor);
  }

  void Close() {
    const YAML::anchor_t anchor = anchors_.back();
    anchors_.pop_back();
    Add(builder_.Close(), anchor);
  }

  void Add(Subtree subtree, YAML::anchor_t anchor) {
    if (anchor != YAML::NullAnchor) {
      Demand(builder_.AddWeight(subtree.weight));
      anchored_[anchor] = subtree;
    }
    Demand(builder_.Add(std::move(subtree)));
  }

  TreeBuilder& builder_;
  std::vector<YAML::anchor_t> anchors_;  // of the open containers
  std::map<YAML::anchor_t, Subtree> anchored_;
  int documents_ = 0;
  YAML::Mark mark_;
};

Mistake SyntaxMistake(std::string what, const YAML::Mark& mark) {
  const bool has_place = !mark.is_null();
  return {.what = std::move(what),
          .line = has_place ? mark.line + 1 : 0,
          .column = has_place ? mark.column + 1 : 0};
}

bool ParseYaml(std::string_view text, TreeBuilder& builder, std::vector<Mistake>& mistakes) {
  std::istringstream stream{std::string(text)};
  YamlEvents events(builder);
  try {
    YAML::Parser parser(stream);
    while (parser.HandleNextDocument(events)) {
    }
    return true;
  } catch (const YamlEvents::Stopped&) {
    // The builder knows the pointer only; the whole file has none.
    Mistake& mistake = mistakes.back();
    if (mistake.pointer.empty()) mistake = SyntaxMistake(mistake.what, events.mark());
  } catch (const YAML::Exception& error) {
    mistakes.push_back(SyntaxMistake(error.msg, error.mark));
  } catch (const std::exception& error) {
    mistakes.push_back({.what = absl::StrCat("cannot be read as YAML: ", error.what())});
  }
  return false;
}

}  // namespace

std::optional<SortedJson> ParseJsonAt(std::string_view text, const std::string& pointer,
                                      std::vector<Mistake>& mistakes) {
  TreeBuilder builder(pointer, mistakes);
  JsonEvents events(text, builder, mistakes);
  if (!SortedJson::sax_parse(text, &events)) return std::nullopt;
  return std::move(builder.root());
}

std::optional<SortedJson> ParseConfigTree(std::string_view text, ConfigFormat format,
                                          std::vector<Mistake>& mistakes) {
  if (text.size() > kMaxConfigBytes) {
    mistakes.push_back({.what = absl::StrCat("is larger than ", kMaxConfigBytes, " bytes")});
    return std::nullopt;
  }
  if (format == ConfigFormat::kJson) return ParseJsonAt(text, "", mistakes);
  TreeBuilder builder("", mistakes);
  if (!ParseYaml(text, builder, mistakes)) return std::nullopt;
  return std::move(builder.root());
}

std::string PointerStep(std::string_view key) {
  const bool is_long = key.size() > kMaxStepBytes;
  const std::string shown(key.substr(0, kMaxStepBytes));
  std::string step = absl::StrReplaceAll(shown, {{"~", "~0"}, {"/", "~1"}});
  return is_long ? step + "..." : step;
}

bool IsUtf8(const std::string& text) {
  try {
    (void)SortedJson(text).dump();
    return true;
  } catch (const SortedJson::exception&) {
    return false;
  }
}

}  // namespace braid
