#include "slowpath/journal.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <nlohmann/json.hpp>
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
      "by "
      "hand what it names, and remove it");
}

}  // namespace

Whereabouts WhereaboutsOfThisProcess() {
  const auto boot = HostFiles().Read("/proc/sys/kernel/random/boot_id");
  return {boot.value_or(""), NetworkNamespaceOfThisProcess()};
}

bool IsNetworkAlive(const std::string& network_namespace) {
  std::error_code error;
  for (const std::string& name : HostFiles().List("/proc")) {
    if (name.find_first_not_of("0123456789") != name.npos) continue;
    const auto link = std::filesystem::read_symlink("/proc/" + name + "/ns/net", error);
    if (error == std::errc::permission_denied) return true;
    if (!error && link.string() == network_namespace) return true;
  }
  for (const std::string& name : HostFiles().List("/run/netns")) {
    struct stat file;
    if (stat(("/run/netns/" + name).c_str(), &file) != 0) continue;
    if (absl::StrCat("net:[", file.st_ino, "]") == network_namespace) return true;
  }
  return false;
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
               {"changes", Json::array()}};
  for (const HostChange& change : journal.changes) json["changes"].push_back(ToJson(change));
  return json.dump(1, ' ', false, Json::error_handler_t::replace) + "\n";
}

absl::StatusOr<Journal> Journal::Open(const std::string& path) {
  // The lock is a file of its own: the journal is replaced by each change.
  const std::string lock_path = path + ".lock";
  UniqueFd lock(open(lock_path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!lock) return absl::ErrnoToStatus(errno, lock_path);
  if (flock(lock.get(), LOCK_EX | LOCK_NB) != 0) {
    return absl::AlreadyExistsError(path +
                                    ": a daemon that runs, or another clean-up, has it open");
  }
  Journal journal(path, std::move(lock));
  if (absl::Status status = journal.Load(); !status.ok()) return status;
  return journal;
}

absl::Status Journal::Load() {
  const auto text = ReadSmallFile(path_, kMaxJournalBytes, FilePrivacy::kOwnerOnly);
  if (absl::IsNotFound(text.status())) return absl::OkStatus();
  auto journal = text.ok() ? ParseJournal(*text) : text.status();
  if (!journal.ok()) return InFile(path_, journal.status());
  journal_ = *std::move(journal);
  return absl::OkStatus();
}

absl::Status Journal::Save() const {
  if (journal_.changes.empty()) {
    if (unlink(path_.c_str()) == 0 || errno == ENOENT) return absl::OkStatus();
    return absl::ErrnoToStatus(errno, path_);
  }
  return InFile(path_, ReplaceSmallFile(path_, RenderJournal(journal_)));
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
