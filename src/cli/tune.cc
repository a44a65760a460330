// `braid tune`: what of this machine's set-up costs the tunnel throughput; sets it better, and
// back.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <iostream>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "cli/cli.h"
#include "cli/outcome.h"
#include "cli/tint.h"
#include "cli/tune_view.h"
#include "slowpath/config.h"
#include "slowpath/host_survey.h"
#include "slowpath/tune_changes.h"
#include "slowpath/tuning.h"
#include "slowpath/undo_file.h"

namespace braid {
namespace {

struct TuneArguments {
  std::string config;
  std::vector<std::string> interfaces;
  std::vector<std::string> only;
  std::string undo_file = kDefaultUndoFile;
  bool json = false, apply = false, power = false, undo = false, force = false;
};

class Tuner {
 public:
  explicit Tuner(const TuneArguments& arguments) : arguments_(arguments) {}

  int Run();

 private:
  absl::Status Prepare();
  std::vector<Finding> FindNow();
  std::vector<Change> ChangesNow();
  int Undo();
  int Apply();
  void Print(const nlohmann::ordered_json& json, const std::string& text) const;
  bool Colour() const { return WantsColour(STDOUT_FILENO); }

  const TuneArguments& arguments_;
  const HostFiles files_;
  const std::unique_ptr<Ethtool> ethtool_ = OpenEthtool();
  HostSettings settings_{files_, *ethtool_};
  Surveyor surveyor_;
  std::vector<TunnelLink> links_;
  WorkerLayout layout_;
};

// The configuration, if one is given; what it and the command line say of devices.
absl::Status Tuner::Prepare() {
  Config config;
  if (!arguments_.config.empty()) {
    LoadedConfig loaded = LoadConfig(arguments_.config, ProcessEnvironment());
    for (const Mistake& mistake : loaded.mistakes) {
      std::cerr << DescribeMistake(loaded.file, mistake) << '\n';
    }
    if (!loaded.config) return absl::InvalidArgumentError("the configuration has mistakes");
    config = *std::move(loaded.config);
  }
  surveyor_ = ThisProcess();
  layout_ = ChooseWorkers(config);
  links_ = FindTunnelLinks(files_, &config, LookUpAddresses());
  if (arguments_.interfaces.empty()) return absl::OkStatus();
  links_.clear();
  for (const std::string& name : arguments_.interfaces) {
    if (surveyor_.device_indices.count(name) == 0) {
      return absl::NotFoundError("this machine has no interface \"" + name + "\"");
    }
    links_.push_back({name, "asked for"});
  }
  return absl::OkStatus();
}

std::vector<Finding> Tuner::FindNow() {
  std::vector<Finding> findings =
      FindTuning(SurveyHost(files_, *ethtool_, surveyor_, links_), layout_);
  std::erase_if(findings, [&](const Finding& finding) {
    const auto name = kTuneGroups[static_cast<size_t>(finding.group)];
    return !arguments_.only.empty() &&
           std::find(arguments_.only.begin(), arguments_.only.end(), name) == arguments_.only.end();
  });
  return findings;
}

std::vector<Change> Tuner::ChangesNow() {
  std::vector<Change> changes;
  for (const Finding& finding : FindNow()) {
    if (finding.group == TuneGroup::kPower && !arguments_.power) continue;
    changes.insert(changes.end(), finding.changes.begin(), finding.changes.end());
  }
  return changes;
}

void Tuner::Print(const nlohmann::ordered_json& json, const std::string& text) const {
  if (arguments_.json) {
    std::cout << json.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace)
              << std::endl;
  } else {
    std::cout << text << std::flush;
  }
}

int Tuner::Apply() {
  auto undo = UndoFile::Open(arguments_.undo_file, NetworkNamespaceOfThisProcess(), true);
  if (!undo.ok()) return Fail("tune", undo.status());
  const std::vector<ChangeResult> changes =
      ApplyChanges([this] { return ChangesNow(); }, settings_, *undo);
  const TuneReport report{layout_, links_, FindNow()};
  nlohmann::ordered_json json = DescribeTuneReport(report);
  json["changes"] = DescribeChanges(changes);
  json["undo_file"] = arguments_.undo_file;
  std::string text = RenderChanges(changes, Colour());
  if (!undo->entries().empty()) text += "undo: braid tune --undo";
  if (!undo->entries().empty() && arguments_.undo_file != kDefaultUndoFile) {
    text += " --undo-file " + arguments_.undo_file;
  }
  if (!undo->entries().empty()) text += "\n";
  Print(json, text);
  return std::any_of(changes.begin(), changes.end(), [](const ChangeResult& change) {
    return change.outcome == ChangeResult::Outcome::kFailed;
  });
}

int Tuner::Undo() {
  auto undo = UndoFile::Open(arguments_.undo_file, NetworkNamespaceOfThisProcess(), false);
  if (!undo.ok()) return Fail("tune", undo.status());
  if (undo->entries().empty()) {
    Print({{"changes", nlohmann::ordered_json::array()}},
          "nothing to undo: " + arguments_.undo_file + " tells of no change\n");
    return 0;
  }
  const std::map<std::string, int> indices = ThisProcess().device_indices;
  for (const UndoEntry& entry : undo->entries()) {
    const Setting& setting = entry.setting;
    if (setting.kind != Setting::Kind::kFile || setting.device.empty()) continue;
    const absl::Status status = CheckDeviceFiles(files_, setting.device, indices);
    if (!status.ok() && !absl::IsNotFound(status)) return Fail("tune", status);
  }
  const auto changes = UndoChanges(settings_, *undo, arguments_.force);
  if (!changes.ok()) return Fail("tune", changes.status());
  Print({{"changes", DescribeChanges(*changes)}}, RenderChanges(*changes, Colour()));
  return undo->entries().empty() ? 0 : 1;
}

int Tuner::Run() {
  if (arguments_.undo) return Undo();
  if (const absl::Status status = Prepare(); !status.ok()) {
    return Fail("tune", status);
  }
  if (arguments_.apply) return Apply();
  const TuneReport report{layout_, links_, FindNow()};
  Print(DescribeTuneReport(report), RenderTuneReport(report, Colour()));
  return EndOutput("tune");
}

}  // namespace

void AddTuneCommand(CLI::App& app, int& exit_code) {
  CLI::App* command = app.add_subcommand(
      "tune", "Show what of this machine's set-up costs throughput, and set it better");
  const auto arguments = std::make_shared<TuneArguments>();
  auto* config =
      command->add_option("--config,-c", arguments->config, "The configuration whose links count")
          ->type_name("FILE");
  auto* interfaces =
      command
          ->add_option("--interface", arguments->interfaces,
                       "Look at this network interface, not at those of default routes and of the "
                       "configuration; may be repeated")
          ->type_name("NAME");
  auto* only =
      command->add_option("--only", arguments->only, "Look at this group only; may be repeated")
          ->type_name("GROUP")
          ->check(CLI::IsMember(
              std::vector<std::string>(std::begin(kTuneGroups), std::end(kTuneGroups))));
  command->add_flag("--json", arguments->json, "Print JSON");
  auto* apply = command->add_flag("--apply", arguments->apply, "Set what can be set");
  command->add_flag("--power", arguments->power, "With --apply: also what takes more power")
      ->needs(apply);
  auto* undo = command->add_flag("--undo", arguments->undo, "Bring back what --apply has changed");
  undo->excludes(apply);
  // Everything is brought back: who asks for a part must not be taken to have got it.
  for (CLI::Option* part : {config, interfaces, only}) undo->excludes(part);
  command
      ->add_flag("--force", arguments->force,
                 "With --undo: also what somebody else has changed since")
      ->needs(undo);
  command->add_option("--undo-file", arguments->undo_file, "Where changes are noted")
      ->type_name("PATH")
      ->capture_default_str();
  command->footer("Nothing is changed without --apply or --undo.");
  command->callback([arguments, &exit_code] { exit_code = Tuner(*arguments).Run(); });
}

}  // namespace braid
