#include "slowpath/bring_up.h"

#include <algorithm>
#include <filesystem>
#include <iterator>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"

namespace braid {
namespace {

constexpr char kJournalPrefix[] = "bring-up-";
constexpr char kJournalSuffix[] = ".json";

// What a write in place that failed leaves there: of ours, or of what was to come back.
bool IsHalfWritten(const ReplacedFile& now, const ReplacedFile& made) {
  const bool are_files =
      now.existed && now.link_target.empty() && made.existed && made.link_target.empty();
  return are_files && (made.ours.starts_with(now.before) || made.before.starts_with(now.before));
}

}  // namespace

std::string JournalPath(const std::string& state_dir, const std::string& device) {
  return absl::StrCat(state_dir, "/", kJournalPrefix, device, kJournalSuffix);
}

absl::StatusOr<std::vector<std::string>> JournalsIn(const std::string& state_dir) {
  std::error_code error;
  std::filesystem::directory_iterator names(state_dir, error);
  std::vector<std::string> journals;
  for (; !error && names != std::filesystem::directory_iterator(); names.increment(error)) {
    const std::string name = names->path().filename().string();
    if (name.starts_with(kJournalPrefix) && name.ends_with(kJournalSuffix)) {
      journals.push_back(absl::StrCat(state_dir, "/", name));
    }
  }
  if (error) return absl::ErrnoToStatus(error.value(), state_dir);
  std::sort(journals.begin(), journals.end());
  return journals;
}

absl::Status BringUp::Do(Step step, const HostChange& change) {
  const std::optional<JournalWriter>& writer = journal_.writer();
  if (!writer || !std::holds_alternative<ReplacedFile>(change)) return (host_.*step)(change);
  const FilesAs as(writer->user, writer->group);
  return as.status().ok() ? (host_.*step)(change) : as.status();
}

absl::Status BringUp::Make(const HostChange& change) {
  return Make(std::vector<HostChange>{change});
}

absl::Status BringUp::Make(const std::vector<HostChange>& wanted) {
  if (wanted.empty()) return absl::OkStatus();
  if (changes().empty()) journal_.BeginHere();
  for (const HostChange& change : wanted) {
    // A table is known by its name alone, so one of that name must not be taken for ours later.
    if (!std::holds_alternative<NftTable>(change)) continue;
    const auto is_there = host_.IsThere(change);
    if (!is_there.ok()) return is_there.status();
    if (*is_there) {
      return absl::AlreadyExistsError(
          absl::StrCat("there is a ", Describe(change), " already, which is not braid's"));
    }
  }
  if (absl::Status status = journal_.Note(wanted); !status.ok()) return status;
  for (size_t i = 0; i < wanted.size(); ++i) {
    absl::Status status = Do(&Host::Make, wanted[i]);
    if (status.ok()) continue;
    // What is there already is somebody else's; what failed may be half made.
    absl::Status undone;
    if (!absl::IsAlreadyExists(status)) undone = Do(&Host::TakeBack, wanted[i]);
    const size_t first = undone.ok() ? i : i + 1;
    const absl::Status struck = journal_.StrikeOut(
        std::vector<HostChange>(wanted.begin() + static_cast<std::ptrdiff_t>(first), wanted.end()));
    for (const absl::Status& also : {undone, struck}) {
      if (!also.ok()) report_(std::string(also.message()));
    }
    return status;
  }
  return absl::OkStatus();
}

// A table of this name was made, so one that is there in its place is taken for ours.
absl::Status BringUp::MakeAgain(const HostChange& change) {
  const auto* table = std::get_if<NftTable>(&change);
  return table != nullptr ? host_.Replace(*table) : host_.Make(change);
}

absl::Status BringUp::Replace(const NftTable& before, const NftTable& now) {
  if (absl::Status status = journal_.Exchange(before, now); !status.ok()) return status;
  return host_.Replace(now);
}

absl::Status BringUp::SetSysctl(const std::string& path, const std::string& value) {
  auto sysctl = host_.LookAtSysctl(path, value);
  if (!sysctl.ok()) return sysctl.status();
  if (sysctl->before == value) return absl::OkStatus();
  for (const HostChange& change : changes()) {
    const auto* made = std::get_if<Sysctl>(&change);
    if (made != nullptr && made->path == path && made->ours == value) return host_.Make(change);
  }
  return Make(*std::move(sysctl));
}

absl::Status BringUp::ReplaceFile(const std::string& path, const std::string& contents) {
  auto file = host_.LookAtFile(path, contents);
  if (!file.ok()) return file.status();
  const auto made = std::find_if(changes().begin(), changes().end(), [&path](const auto& change) {
    const auto* other = std::get_if<ReplacedFile>(&change);
    return other != nullptr && other->path == path;
  });
  if (made == changes().end()) return Make(*std::move(file));
  const auto& before = std::get<ReplacedFile>(*made);
  if (IsHalfWritten(*file, before)) {
    file = before;
    file->ours = contents;
  }
  const HostChange now = *std::move(file);
  if (absl::Status status = journal_.Exchange(*made, now); !status.ok()) return status;
  absl::Status status = Do(&Host::Make, now);
  if (status.ok()) return status;
  if (absl::Status undone = TakeBack({now}); !undone.ok()) {
    report_(std::string(undone.message()));
  }
  return status;
}

absl::Status BringUp::TakeBack(const std::vector<HostChange>& changes) {
  absl::Status first;
  std::vector<HostChange> over;
  for (auto change = changes.rbegin(); change != changes.rend(); ++change) {
    const absl::Status status = Do(&Host::TakeBack, *change);
    if (!status.ok()) report_(std::string(status.message()));
    if (IsChangedSince(status)) changed_since_.push_back(*change);
    if (status.ok() || IsChangedSince(status)) {
      over.push_back(*change);
    } else if (first.ok()) {
      first = status;
    }
  }
  // All at once: until then taking back again does no harm.
  const absl::Status struck = journal_.StrikeOut(over);
  return first.ok() ? struck : first;
}

absl::Status BringUp::TakeBackAll() {
  if (changes().empty()) return absl::OkStatus();
  const Whereabouts here = WhereaboutsOfThisProcess();
  const bool same_boot = journal_.where().boot == here.boot;
  const bool same_network = journal_.where().network_namespace == here.network_namespace;
  if (same_boot && same_network) return TakeBack(std::vector<HostChange>(changes()));
  if (same_boot && IsNetworkAlive(journal_.where(), here)) {
    return absl::FailedPreconditionError(
        absl::StrCat("what is to be taken back was done in the network namespace ",
                     journal_.where().network_namespace, ", and this is ", here.network_namespace,
                     ": run \"braid cleanup\" there"));
  }
  std::vector<HostChange> gone, left;
  std::partition_copy(changes().begin(), changes().end(), std::back_inserter(gone),
                      std::back_inserter(left), EndsWithBoot);
  if (absl::Status status = journal_.StrikeOut(gone); !status.ok()) return status;
  return TakeBack(left);
}

}  // namespace braid
