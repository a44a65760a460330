#include "slowpath/tune_changes.h"

#include <algorithm>
#include <set>

namespace braid {
namespace {

using Outcome = ChangeResult::Outcome;

bool IsGone(const absl::Status& status) {
  return absl::IsNotFound(status) || absl::IsUnimplemented(status);
}

// Writes and reads back. What it has become is in `found`, when that differs.
absl::Status WriteAndVerify(SettingStore& store, const Setting& setting, const std::string& value,
                            std::string& found) {
  const absl::Status written = store.Write(setting, value);
  const auto now = store.Read(setting);
  found = now.value_or("");
  if (!now.ok()) return written.ok() ? now.status() : written;
  if (SameValue(setting, *now, value)) return absl::OkStatus();
  if (!written.ok()) return written;
  return absl::AbortedError("it was written and is " + found + " nevertheless");
}

ChangeResult Apply(const Change& change, SettingStore& store, UndoFile& undo) {
  ChangeResult result{change.setting, "", change.value, Outcome::kFailed, ""};
  const auto before = store.Read(change.setting);
  if (!before.ok()) {
    result.why = std::string(before.status().message());
    return result;
  }
  result.from = *before;
  if (SameValue(change.setting, *before, change.value)) {
    result.outcome = Outcome::kAlready;
    return result;
  }
  absl::Status status = undo.Note(change.setting, *before, change.value);
  std::string found;
  if (status.ok()) {
    status = WriteAndVerify(store, change.setting, change.value, found);
    if (!status.ok() && !found.empty()) {
      // A refused change leaves no trace; a value that is neither the old nor the wanted one is
      // still this program's doing.
      const auto known =
          std::find_if(undo.entries().begin(), undo.entries().end(),
                       [&](const UndoEntry& entry) { return entry.setting == change.setting; });
      const bool untouched =
          known != undo.entries().end() && SameValue(change.setting, found, known->before);
      const absl::Status kept =
          untouched ? undo.Forget({change.setting}) : undo.Note(change.setting, *before, found);
      if (!kept.ok()) status = kept;
    }
  }
  result.outcome = status.ok() ? Outcome::kDone : Outcome::kFailed;
  result.why = std::string(status.message());
  return result;
}

ChangeResult Undo(const UndoEntry& entry, SettingStore& store, bool force) {
  ChangeResult result{entry.setting, "", entry.before, Outcome::kFailed, ""};
  const auto now = store.Read(entry.setting);
  if (!now.ok()) {
    result.outcome = IsGone(now.status()) ? Outcome::kGone : Outcome::kFailed;
    result.why = std::string(now.status().message());
    return result;
  }
  result.from = *now;
  if (SameValue(entry.setting, *now, entry.before)) {
    result.outcome = Outcome::kAlready;
    return result;
  }
  const bool ours = std::any_of(entry.ours.begin(), entry.ours.end(), [&](const auto& value) {
    return SameValue(entry.setting, *now, value);
  });
  if (!ours && !force) {
    result.outcome = Outcome::kForeign;
    return result;
  }
  std::string found;
  const absl::Status status = WriteAndVerify(store, entry.setting, entry.before, found);
  result.outcome = status.ok() ? Outcome::kDone : Outcome::kFailed;
  result.why = std::string(status.message());
  return result;
}

}  // namespace

std::vector<ChangeResult> ApplyChanges(const std::function<std::vector<Change>()>& find_changes,
                                       SettingStore& store, UndoFile& undo) {
  std::vector<ChangeResult> results;
  std::set<Setting> tried;
  const auto is_channels = [](const Change& change) {
    return change.setting.kind == Setting::Kind::kChannels;
  };
  for (;;) {
    std::vector<Change> changes = find_changes();
    std::erase_if(changes, [&](const Change& change) { return tried.count(change.setting) > 0; });
    if (changes.empty()) return results;
    if (std::any_of(changes.begin(), changes.end(), is_channels)) {
      std::erase_if(changes, [&](const Change& change) { return !is_channels(change); });
    }
    for (const Change& change : changes) {
      tried.insert(change.setting);
      results.push_back(Apply(change, store, undo));
    }
  }
}

absl::StatusOr<std::vector<ChangeResult>> UndoChanges(SettingStore& store, UndoFile& undo,
                                                      bool force) {
  std::vector<ChangeResult> results;
  const std::vector<UndoEntry> entries = undo.entries();
  for (auto entry = entries.rbegin(); entry != entries.rend(); ++entry) {
    results.push_back(Undo(*entry, store, force));
  }
  // Only now: a crash until here undoes it all once more, which changes nothing that is back.
  std::vector<Setting> settled;
  for (const ChangeResult& result : results) {
    if (result.outcome != Outcome::kFailed) settled.push_back(result.setting);
  }
  if (absl::Status status = undo.Forget(settled); !status.ok()) return status;
  return results;
}

}  // namespace braid
