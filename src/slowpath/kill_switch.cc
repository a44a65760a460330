#include "slowpath/kill_switch.h"

#include <unistd.h>

#include <cerrno>
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

}  // namespace

absl::Status EngageKillSwitch(const std::string& state_dir, const std::string& device) {
  auto devices = ReadDevices(state_dir);
  // What a damaged file has said is lost; the switch itself must not be.
  std::set<std::string> all = devices.ok() ? *std::move(devices) : std::set<std::string>();
  all.insert(device);
  const std::string file = FileIn(state_dir);
  std::error_code error;
  std::filesystem::create_directories(state_dir, error);
  const Json json = {{"version", kKillSwitchVersion}, {"devices", all}};
  if (absl::Status status = ReplaceSmallFile(file, json.dump() + "\n"); !status.ok()) {
    return InFile(file, status);
  }
  return ReplaceTable(KillSwitchTable({all.begin(), all.end()}));
}

absl::StatusOr<std::optional<NftTable>> KeptKillSwitch(const std::string& state_dir) {
  const auto devices = ReadDevices(state_dir);
  if (!devices.ok()) return devices.status();
  if (devices->empty()) return std::nullopt;
  return KillSwitchTable({devices->begin(), devices->end()});
}

absl::Status LoadKillSwitch(const std::string& state_dir) {
  const auto kept = KeptKillSwitch(state_dir);
  if (!kept.ok() || !*kept) return kept.status();
  return ReplaceTable(**kept);
}

absl::Status ShutEverythingIn() { return ReplaceTable(KillSwitchTable({})); }

// The table first: as long as the file is there, another attempt knows what is to be done.
absl::Status LiftKillSwitch(const std::string& state_dir) {
  if (absl::Status status = RemoveTable(KillSwitchTable({})); !status.ok()) return status;
  const std::string file = FileIn(state_dir);
  if (unlink(file.c_str()) == 0 || errno == ENOENT) return absl::OkStatus();
  return absl::ErrnoToStatus(errno, file);
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
