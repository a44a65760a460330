#include "slowpath/undo_file.h"

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "slowpath/small_file.h"

namespace braid {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kUndoFileVersion = 1;

absl::Status Wrong(const std::string& path, const std::string& why) {
  return absl::FailedPreconditionError(path + ": " + why);
}

std::string TextOf(const Json& object, const char* name) {
  const auto found = object.find(name);
  return found != object.end() && found->is_string() ? found->get<std::string>() : "";
}

std::optional<UndoEntry> ReadEntry(const Json& json) {
  if (!json.is_object()) return std::nullopt;
  UndoEntry entry;
  const auto kind = KindNamed(TextOf(json, "kind"));
  const auto before = json.find("before");
  const auto ours = json.find("ours");
  if (!kind || before == json.end() || !before->is_string() || ours == json.end() ||
      !ours->is_array()) {
    return std::nullopt;
  }
  entry.setting = {*kind, TextOf(json, "device"), TextOf(json, "name")};
  entry.before = before->get<std::string>();
  for (const Json& value : *ours) {
    if (!value.is_string()) return std::nullopt;
    entry.ours.push_back(value.get<std::string>());
  }
  return entry;
}

Json ToJson(const UndoEntry& entry) {
  return {{"kind", std::string(KindName(entry.setting.kind))},
          {"device", entry.setting.device},
          {"name", entry.setting.name},
          {"before", entry.before},
          {"ours", entry.ours}};
}

}  // namespace

absl::StatusOr<std::vector<UndoEntry>> ParseUndoText(std::string_view text,
                                                     const std::string& network) {
  const absl::Status damaged = absl::FailedPreconditionError(
      "is no undo file of this version, or is damaged; nothing was changed. Look into it, then "
      "name another with --undo-file or remove it");
  const Json json = Json::parse(text, nullptr, false);
  if (!json.is_object() || json.value("version", Json()) != kUndoFileVersion) return damaged;
  const auto changes = json.find("changes");
  if (changes == json.end() || !changes->is_array()) return damaged;
  std::vector<UndoEntry> entries;
  for (const Json& change : *changes) {
    auto entry = ReadEntry(change);
    if (!entry) return damaged;
    if (!IsTunable(entry->setting)) {
      return absl::FailedPreconditionError("tells of \"" + entry->setting.Describe() +
                                           "\", which tuning never changes; nothing was changed");
    }
    entries.push_back(*std::move(entry));
  }
  const std::string written_in = TextOf(json, "network_namespace");
  if (written_in != network) {
    return absl::FailedPreconditionError(
        "was written in the network namespace " + written_in + ", and this is " + network +
        "; run there, name another file with --undo-file, or remove this one if that namespace is "
        "gone");
  }
  return entries;
}

std::string RenderUndoText(const std::vector<UndoEntry>& entries, const std::string& network) {
  Json json = {
      {"version", kUndoFileVersion}, {"network_namespace", network}, {"changes", Json::array()}};
  for (const UndoEntry& entry : entries) json["changes"].push_back(ToJson(entry));
  // Whatever bytes a file held that the kernel let somebody write.
  return json.dump(1, ' ', false, Json::error_handler_t::replace) + "\n";
}

absl::StatusOr<UndoFile> UndoFile::Open(const std::string& path, const std::string& network,
                                        bool for_writing) {
  const std::string folder = std::filesystem::path(path).parent_path().string();
  if (for_writing && !folder.empty()) {
    std::error_code error;
    std::filesystem::create_directories(folder, error);
    if (error) return Wrong(folder, "cannot be made: " + error.message());
  }
  auto lock = LockFile(path, LockWait::kUntilFree);
  // Then there is no file either.
  if (absl::IsNotFound(lock.status()) && !for_writing) return UndoFile(path, network, UniqueFd());
  if (!lock.ok()) return lock.status();
  UndoFile file(path, network, *std::move(lock));
  if (absl::Status status = file.Load(); !status.ok()) return status;
  return file;
}

absl::Status UndoFile::Load() {
  const auto text = ReadSmallFile(path_, kMaxUndoBytes, FilePrivacy::kOwnerOnly);
  if (absl::IsNotFound(text.status())) return absl::OkStatus();
  if (!text.ok()) return Wrong(path_, std::string(text.status().message()));
  auto entries = ParseUndoText(*text, network_);
  if (!entries.ok()) return Wrong(path_, std::string(entries.status().message()));
  entries_ = *std::move(entries);
  return absl::OkStatus();
}

absl::Status UndoFile::Save() const {
  absl::Status status;
  if (entries_.empty()) {
    status = RemoveSmallFile(path_);
  } else {
    status = ReplaceSmallFile(path_, RenderUndoText(entries_, network_),
                              {.temporary_suffix = kOnlyWriterSuffix});
  }
  return status.ok() ? status : Wrong(path_, std::string(status.message()));
}

absl::Status UndoFile::Note(const Setting& setting, const std::string& before,
                            const std::string& after) {
  const std::vector<UndoEntry> entries_before = entries_;
  auto entry = std::find_if(entries_.begin(), entries_.end(),
                            [&](const UndoEntry& one) { return one.setting == setting; });
  if (entry == entries_.end()) entry = entries_.insert(entry, {setting, before, {}});
  if (std::find(entry->ours.begin(), entry->ours.end(), after) == entry->ours.end()) {
    entry->ours.push_back(after);
  }
  if (entries_ == entries_before) return absl::OkStatus();
  absl::Status status = Save();
  if (!status.ok()) entries_ = entries_before;
  return status;
}

absl::Status UndoFile::Forget(const std::vector<Setting>& settings) {
  const size_t forgotten = std::erase_if(entries_, [&](const UndoEntry& one) {
    return std::find(settings.begin(), settings.end(), one.setting) != settings.end();
  });
  return forgotten == 0 ? absl::OkStatus() : Save();
}

std::string NetworkNamespaceOfThisProcess() {
  std::error_code error;
  return std::filesystem::read_symlink("/proc/self/ns/net", error).string();
}

}  // namespace braid
