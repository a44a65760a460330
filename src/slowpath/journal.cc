#include "slowpath/journal.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <sstream>
#include <utility>

#include "absl/strings/str_cat.h"
#include "slowpath/host_files.h"
#include "slowpath/small_file.h"
#include "slowpath/undo_file.h"

namespace braid {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kJournalVersion = 1;

absl::Status Damaged() {
  return absl::DataLossError(
      "is no journal of this version, or is damaged: nothing was undone. Look into it, take back "
      "by hand what it names, and remove it");
}

// The 22nd field of its stat, in ticks since boot; the second one, in brackets, may hold anything.
std::string StartOfInit() {
  constexpr int kFieldsInBetween = 19;
  const std::string stat = HostFiles().Read("/proc/1/stat").value_or("");
  std::istringstream fields(stat.substr(std::min(stat.rfind(')') + 1, stat.size())));
  std::string field;
  for (int i = 0; i <= kFieldsInBetween; ++i) fields >> field;
  return fields ? field : "";
}

// Whoever the folder belongs to could have laid root's own file there.
std::optional<JournalWriter> OtherWriterOf(const std::string& path, const OwnedText& file) {
  if (geteuid() != 0) return std::nullopt;
  if (file.owner != 0) return JournalWriter{file.owner, file.group};
  struct stat folder;
  const std::string parent = std::filesystem::path(path).parent_path().string();
  if (stat(parent.c_str(), &folder) != 0 || folder.st_uid == 0) return std::nullopt;
  return JournalWriter{folder.st_uid, folder.st_gid};
}

}  // namespace

Whereabouts WhereaboutsOfThisProcess() {
  const auto boot = HostFiles().Read("/proc/sys/kernel/random/boot_id");
  return {boot.value_or(""), NetworkNamespaceOfThisProcess(), StartOfInit()};
}

bool IsNetworkAlive(const Whereabouts& where, const Whereabouts& here) {
  bool may_hide = false;
  for (const std::string& name : HostFiles().List("/proc")) {
    if (name.find_first_not_of("0123456789") != name.npos) continue;
    std::error_code error;
    const auto link = std::filesystem::read_symlink("/proc/" + name + "/ns/net", error);
    may_hide |= error == std::errc::permission_denied;
    if (!error && link.string() == where.network_namespace) return true;
  }
  for (const std::string& name : HostFiles().List("/run/netns")) {
    struct stat file;
    if (stat(("/run/netns/" + name).c_str(), &file) != 0) continue;
    if (absl::StrCat("net:[", file.st_ino, "]") == where.network_namespace) return true;
  }
  const bool all_began_later = !where.init.empty() && !here.init.empty() && where.init != here.init;
  return may_hide && !all_began_later;
}

absl::StatusOr<JournalText> ParseJournal(std::string_view text) {
  const Json json = Json::parse(text, nullptr, false);
  if (!json.is_object() || json.value("version", Json()) != kJournalVersion) return Damaged();
  JournalText journal;
  for (const auto& [name, to] :
       {std::pair{"boot", &journal.where.boot},
        std::pair{"network_namespace", &journal.where.network_namespace}}) {
    const auto found = json.find(name);
    if (found == json.end() || !found->is_string()) return Damaged();
    *to = found->get<std::string>();
  }
  if (const auto init = json.find("init"); init != json.end()) {
    if (!init->is_string()) return Damaged();
    journal.where.init = init->get<std::string>();
  }
  const auto changes = json.find("changes");
  if (changes == json.end() || !changes->is_array()) return Damaged();
  for (const Json& one : *changes) {
    auto change = HostChangeFrom(one);
    if (!change) return Damaged();
    journal.changes.push_back(*std::move(change));
  }
  return journal;
}

std::string RenderJournal(const JournalText& journal) {
  Json json = {{"version", kJournalVersion},
               {"boot", journal.where.boot},
               {"network_namespace", journal.where.network_namespace},
               {"init", journal.where.init},
               {"changes", Json::array()}};
  for (const HostChange& change : journal.changes) json["changes"].push_back(ToJson(change));
  return json.dump(1, ' ', false, Json::error_handler_t::replace) + "\n";
}

absl::StatusOr<Journal> Journal::Open(const std::string& path) {
  auto lock = LockFile(path, LockWait::kNo);
  if (absl::IsAlreadyExists(lock.status())) {
    return absl::AlreadyExistsError(path +
                                    ": a daemon that runs, or another clean-up, has it open");
  }
  if (!lock.ok()) return lock.status();
  Journal journal(path, *std::move(lock));
  if (absl::Status status = journal.Load(); !status.ok()) return status;
  return journal;
}

absl::Status Journal::Load() {
  const auto file = ReadOwnedFile(path_, kMaxJournalBytes, FilePrivacy::kOwnerOnly);
  if (absl::IsNotFound(file.status())) return absl::OkStatus();
  auto journal = file.ok() ? ParseJournal(file->text) : file.status();
  if (!journal.ok()) return InFile(path_, journal.status());
  journal_ = *std::move(journal);
  writer_ = OtherWriterOf(path_, *file);
  return absl::OkStatus();
}

absl::Status Journal::Save() const {
  if (journal_.changes.empty()) return InFile(path_, RemoveSmallFile(path_));
  return InFile(path_, ReplaceSmallFile(path_, RenderJournal(journal_),
                                        {.temporary_suffix = kOnlyWriterSuffix}));
}

absl::Status Journal::Note(const std::vector<HostChange>& changes) {
  const size_t before = journal_.changes.size();
  journal_.changes.insert(journal_.changes.end(), changes.begin(), changes.end());
  absl::Status status = Save();
  if (!status.ok()) journal_.changes.resize(before);
  return status;
}

absl::Status Journal::StrikeOut(const std::vector<HostChange>& changes) {
  const size_t before = journal_.changes.size();
  for (const HostChange& change : changes) {
    const auto found = std::find(journal_.changes.rbegin(), journal_.changes.rend(), change);
    if (found != journal_.changes.rend()) journal_.changes.erase(std::next(found).base());
  }
  return journal_.changes.size() == before ? absl::OkStatus() : Save();
}

absl::Status Journal::Exchange(const HostChange& before, HostChange now) {
  const auto found = std::find(journal_.changes.rbegin(), journal_.changes.rend(), before);
  if (found == journal_.changes.rend()) return Note({std::move(now)});
  HostChange kept = std::exchange(*found, std::move(now));
  absl::Status status = Save();
  if (!status.ok()) *found = std::move(kept);
  return status;
}

}  // namespace braid
