#include "slowpath/kill_switch.h"

#include <unistd.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "slowpath/nft.h"
#include "slowpath/small_file.h"

namespace braid {
namespace {

using Json = nlohmann::ordered_json;

constexpr size_t kMaxKillSwitchBytes = 1 << 20;
constexpr int kKillSwitchVersion = 1;

std::string FileIn(const std::string& state_dir) { return state_dir + "/kill-switch.json"; }

// None where there is no file.
absl::StatusOr<std::set<std::string>> ReadDevices(const std::string& state_dir) {
  const std::string file = FileIn(state_dir);
  const auto text = ReadSmallFile(file, kMaxKillSwitchBytes, FilePrivacy::kOwnerOnly);
  if (absl::IsNotFound(text.status())) return std::set<std::string>();
  if (!text.ok()) return InFile(file, text.status());
  const Json json = Json::parse(*text, nullptr, false);
  std::set<std::string> devices;
  if (json.is_object() && json.value("version", Json()) == kKillSwitchVersion &&
      json.contains("devices")) {
    for (const Json& device : json["devices"]) {
      if (device.is_string()) devices.insert(device.get<std::string>());
    }
  }
  if (!devices.empty()) return devices;
  return absl::DataLossError(absl::StrCat(
      file,
      ": is damaged; start the daemon, which writes it anew, or lift the kill switch with "
      "\"braid cleanup --all\""));
}

NftTable TableFor(const std::set<std::string>& devices) {
  return KillSwitchTable({devices.begin(), devices.end()});
}

// With the lock held.
absl::Status WriteDevices(const std::string& state_dir, const std::set<std::string>& devices) {
  const std::string file = FileIn(state_dir);
  const Json json = {{"version", kKillSwitchVersion}, {"devices", devices}};
  const std::string text = json.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
  return InFile(file, ReplaceSmallFile(file, text, {.temporary_suffix = kOnlyWriterSuffix}));
}

}  // namespace

absl::StatusOr<UniqueFd> LockKillSwitch(const std::string& state_dir) {
  return LockFile(FileIn(state_dir), LockWait::kUntilFree);
}

absl::Status EngageKillSwitch(const std::string& state_dir, const std::string& device) {
  std::error_code error;
  std::filesystem::create_directories(state_dir, error);
  const auto lock = LockKillSwitch(state_dir);
  if (!lock.ok()) return lock.status();
  auto devices = ReadDevices(state_dir);
  if (!devices.ok() && !absl::IsDataLoss(devices.status())) return devices.status();
  // What a damaged file has said is lost; the switch itself must not be.
  std::set<std::string> all = devices.ok() ? *std::move(devices) : std::set<std::string>();
  if (all.insert(device).second) {
    if (absl::Status status = WriteDevices(state_dir, all); !status.ok()) return status;
  }
  return ReplaceTable(TableFor(all));
}

absl::StatusOr<std::optional<NftTable>> KeptKillSwitch(const std::string& state_dir) {
  const auto devices = ReadDevices(state_dir);
  if (!devices.ok()) return devices.status();
  if (devices->empty()) return std::nullopt;
  return TableFor(*devices);
}

absl::Status LoadKillSwitch(const std::string& state_dir) {
  const auto kept = KeptKillSwitch(state_dir);
  if (!kept.ok() || !*kept) return kept.status();
  return ReplaceTable(**kept);
}

absl::Status ShutEverythingIn() { return ReplaceTable(KillSwitchTable({})); }

absl::Status ReleaseFromKillSwitch(const std::string& state_dir, const std::string& device) {
  const auto lock = LockKillSwitch(state_dir);
  if (!lock.ok()) return lock.status();
  auto devices = ReadDevices(state_dir);
  if (!devices.ok()) return devices.status();
  if (devices->erase(device) == 0) {
    return absl::NotFoundError(absl::StrCat("it is not on for ", device));
  }
  if (devices->empty()) {
    return absl::FailedPreconditionError(absl::StrCat(
        "it is on for ", device, " alone: \"braid cleanup --all\" lifts it altogether"));
  }
  if (absl::Status status = WriteDevices(state_dir, *devices); !status.ok()) return status;
  return ReplaceTable(TableFor(*devices));
}

// The table first: as long as the file is there, another attempt knows what is to be done. And once
// more in the end: a daemon that could not have the lock may have read the file and made the table
// anew in between.
absl::Status LiftKillSwitch(const std::string& state_dir) {
  const auto lock = LockKillSwitch(state_dir);
  const NftTable table = KillSwitchTable({});
  if (absl::Status status = RemoveTable(table); !status.ok()) return status;
  const std::string file = FileIn(state_dir);
  // Without the folder there is nothing in it.
  absl::Status removed = RemoveSmallFile(file);
  if (!removed.ok()) return InFile(file, removed);
  return RemoveTable(table);
}

bool IsKillSwitchKept(const std::string& state_dir) {
  return access(FileIn(state_dir).c_str(), F_OK) == 0;
}

absl::StatusOr<KillSwitchState> LookAtKillSwitch(const std::string& state_dir) {
  auto devices = ReadDevices(state_dir);
  if (!devices.ok()) return devices.status();
  const auto is_loaded = HasTable(KillSwitchTable({}));
  if (!is_loaded.ok()) return is_loaded.status();
  return KillSwitchState{*std::move(devices), *is_loaded};
}

}  // namespace braid
