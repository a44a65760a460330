// Changes and the file that takes them back: over crashes, refusals and what others do meanwhile.
#include "slowpath/tune_changes.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <future>
#include <map>
#include <optional>
#include <set>
#include <sstream>
#include <stdexcept>

namespace braid::tune_changes_test {
namespace {

using Outcome = ChangeResult::Outcome;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr char kNetwork[] = "net:[1]";

const Setting kRmem = FileSetting("/proc/sys/net/core/rmem_max");
const Setting kWmem = FileSetting("/proc/sys/net/core/wmem_max");
const Setting kGro{Setting::Kind::kFeature, "eth0", "rx-gro"};
const Setting kQueues{Setting::Kind::kChannels, "eth0", "combined"};
const Setting kSteering = DeviceFileSetting("eth0", "queues/rx-1/rps_cpus");

struct Crash : std::runtime_error {
  Crash() : std::runtime_error("crash") {}
};

class FakeStore : public SettingStore {
 public:
  absl::StatusOr<std::string> Read(const Setting& setting) override {
    const auto found = values.find(setting);
    if (found == values.end()) return absl::NotFoundError("no " + setting.Describe());
    return found->second;
  }
  absl::Status Write(const Setting& setting, const std::string& value) override {
    if (crash_before == setting) throw Crash();
    if (refused.count(setting) > 0) return absl::PermissionDeniedError("refused");
    written.push_back(setting);
    if (rounded.count(setting) > 0) {
      values[setting] = rounded[setting];
    } else if (ignored.count(setting) == 0) {
      values[setting] = value;
    }
    if (crash_after == setting) throw Crash();
    return absl::OkStatus();
  }

  std::map<Setting, std::string> values = {
      {kRmem, "100"}, {kWmem, "200"}, {kGro, "off"}, {kQueues, "1"}};
  std::set<Setting> refused, ignored;
  std::map<Setting, std::string> rounded;
  std::optional<Setting> crash_before, crash_after;
  std::vector<Setting> written;
};

class TuneChangesTest : public ::testing::Test {
 protected:
  TuneChangesTest() {
    char name[] = "/tmp/braid-undo-XXXXXX";
    folder_ = mkdtemp(name);
    path_ = folder_ + "/state/undo.json";
  }
  ~TuneChangesTest() override { std::filesystem::remove_all(folder_); }

  UndoFile Open(const std::string& network = kNetwork) {
    auto file = UndoFile::Open(path_, network, true);
    EXPECT_TRUE(file.ok()) << file.status();
    return *std::move(file);
  }
  std::vector<ChangeResult> Apply(const std::vector<Change>& changes) {
    UndoFile file = Open();
    return ApplyChanges([&] { return changes; }, store_, file);
  }
  std::vector<ChangeResult> Undo(bool force = false) {
    UndoFile file = Open();
    auto results = UndoChanges(store_, file, force);
    EXPECT_TRUE(results.ok()) << results.status();
    return *std::move(results);
  }
  static std::vector<Outcome> Outcomes(const std::vector<ChangeResult>& results) {
    std::vector<Outcome> outcomes;
    for (const ChangeResult& result : results) outcomes.push_back(result.outcome);
    return outcomes;
  }
  std::string Text() const {
    std::stringstream text;
    text << std::ifstream(path_).rdbuf();
    return text.str();
  }
  void Write(const std::string& text, mode_t mode = 0600) {
    std::filesystem::create_directories(folder_ + "/state");
    std::ofstream(path_) << text;
    ASSERT_EQ(chmod(path_.c_str(), mode), 0);
  }
  std::string Refusal(const std::string& network = kNetwork) {
    const auto file = UndoFile::Open(path_, network, true);
    return file.ok() ? "accepted" : std::string(file.status().message());
  }

  std::string folder_;
  std::string path_;
  FakeStore store_;
};

TEST_F(TuneChangesTest, WhatWasAppliedIsTakenBackInReverse) {
  const auto before = store_.values;
  EXPECT_THAT(Outcomes(Apply({{kRmem, "400"}, {kGro, "on"}})),
              ElementsAre(Outcome::kDone, Outcome::kDone));
  EXPECT_EQ(store_.values[kRmem], "400");
  EXPECT_EQ(store_.values[kGro], "on");
  struct stat file;
  ASSERT_EQ(stat(path_.c_str(), &file), 0);
  EXPECT_EQ(file.st_mode & 0777, 0600u);
  store_.written.clear();
  EXPECT_THAT(Outcomes(Undo()), ElementsAre(Outcome::kDone, Outcome::kDone));
  EXPECT_EQ(store_.values, before);
  EXPECT_THAT(store_.written, ElementsAre(kGro, kRmem));
  EXPECT_FALSE(std::filesystem::exists(path_));
  EXPECT_THAT(Undo(), IsEmpty());
}

TEST_F(TuneChangesTest, WhatIsWellIsNeitherWrittenNorNoted) {
  EXPECT_THAT(Outcomes(Apply({{kRmem, "100"}})), ElementsAre(Outcome::kAlready));
  EXPECT_THAT(store_.written, IsEmpty());
  EXPECT_FALSE(std::filesystem::exists(path_));
}

TEST_F(TuneChangesTest, ApplyingTwiceKeepsTheFirstValues) {
  Apply({{kRmem, "400"}});
  Apply({{kRmem, "400"}});
  Apply({{kRmem, "800"}, {kWmem, "900"}});
  EXPECT_THAT(Open().entries(), SizeIs(2));
  Undo();
  EXPECT_EQ(store_.values[kRmem], "100");
  EXPECT_EQ(store_.values[kWmem], "200");
}

TEST_F(TuneChangesTest, EachChangeIsOnDiskBeforeItIsMade) {
  store_.crash_before = kWmem;
  EXPECT_THROW(Apply({{kRmem, "400"}, {kWmem, "500"}, {kGro, "on"}}), Crash);
  EXPECT_THAT(Text(), HasSubstr("wmem_max"));
  store_.crash_before.reset();
  EXPECT_THAT(Outcomes(Undo()), ElementsAre(Outcome::kAlready, Outcome::kDone));
  EXPECT_EQ(store_.values[kRmem], "100");
  EXPECT_EQ(store_.values[kWmem], "200");
  EXPECT_FALSE(std::filesystem::exists(path_));
}

TEST_F(TuneChangesTest, ACrashAfterAChangeIsTakenBackToo) {
  store_.crash_after = kWmem;
  EXPECT_THROW(Apply({{kRmem, "400"}, {kWmem, "500"}}), Crash);
  EXPECT_EQ(store_.values[kWmem], "500");
  store_.crash_after.reset();
  Undo();
  EXPECT_EQ(store_.values[kWmem], "200");
}

// The second time wants another value than the first one set, and does not come to set it.
TEST_F(TuneChangesTest, ACrashBetweenTwoApplicationsLeavesAValueThatIsKnown) {
  Apply({{kRmem, "400"}});
  store_.crash_before = kRmem;
  EXPECT_THROW(Apply({{kRmem, "800"}}), Crash);
  store_.crash_before.reset();
  EXPECT_THAT(Outcomes(Undo()), ElementsAre(Outcome::kDone));
  EXPECT_EQ(store_.values[kRmem], "100");
}

TEST_F(TuneChangesTest, ACrashInTheMiddleOfAnUndoIsMadeGood) {
  Apply({{kRmem, "400"}, {kWmem, "500"}, {kGro, "on"}});
  store_.crash_before = kWmem;
  EXPECT_THROW(Undo(), Crash);
  EXPECT_EQ(store_.values[kGro], "off");
  EXPECT_EQ(store_.values[kRmem], "400");
  store_.crash_before.reset();
  EXPECT_THAT(Outcomes(Undo()), ElementsAre(Outcome::kAlready, Outcome::kDone, Outcome::kDone));
  EXPECT_FALSE(std::filesystem::exists(path_));
}

TEST_F(TuneChangesTest, WhatSomebodyElseChangedIsLeftAlone) {
  Apply({{kRmem, "400"}, {kWmem, "500"}});
  store_.values[kRmem] = "12345";
  EXPECT_THAT(Outcomes(Undo()), ElementsAre(Outcome::kDone, Outcome::kForeign));
  EXPECT_EQ(store_.values[kRmem], "12345");
  EXPECT_EQ(store_.values[kWmem], "200");
  EXPECT_FALSE(std::filesystem::exists(path_));
}

TEST_F(TuneChangesTest, UnlessItIsForced) {
  Apply({{kRmem, "400"}});
  store_.values[kRmem] = "12345";
  EXPECT_THAT(Outcomes(Undo(true)), ElementsAre(Outcome::kDone));
  EXPECT_EQ(store_.values[kRmem], "100");
}

TEST_F(TuneChangesTest, WhatIsGoneNeedsNoUndo) {
  Apply({{kGro, "on"}, {kRmem, "400"}});
  store_.values.erase(kGro);
  EXPECT_THAT(Outcomes(Undo()), ElementsAre(Outcome::kDone, Outcome::kGone));
  EXPECT_FALSE(std::filesystem::exists(path_));
}

TEST_F(TuneChangesTest, ARefusedChangeIsToldAndTheOthersGoOn) {
  store_.refused = {kRmem};
  const auto results = Apply({{kRmem, "400"}, {kGro, "on"}});
  EXPECT_THAT(Outcomes(results), ElementsAre(Outcome::kFailed, Outcome::kDone));
  EXPECT_THAT(results[0].why, HasSubstr("refused"));
  ASSERT_THAT(Open().entries(), SizeIs(1));
  EXPECT_EQ(Open().entries()[0].setting, kGro);
}

TEST_F(TuneChangesTest, ARefusedChangeAloneLeavesNoFile) {
  store_.refused = {kRmem};
  Apply({{kRmem, "400"}});
  EXPECT_FALSE(std::filesystem::exists(path_));
}

TEST_F(TuneChangesTest, AWriteThatHadNoEffectIsFound) {
  store_.ignored = {kRmem};
  const auto results = Apply({{kRmem, "400"}});
  EXPECT_THAT(Outcomes(results), ElementsAre(Outcome::kFailed));
  EXPECT_THAT(results[0].why, HasSubstr("is 100 nevertheless"));
}

TEST_F(TuneChangesTest, AValueThatTheKernelMadeOfItIsTakenBackToo) {
  store_.rounded[kRmem] = "384";
  EXPECT_THAT(Outcomes(Apply({{kRmem, "400"}})), ElementsAre(Outcome::kFailed));
  store_.rounded.clear();
  EXPECT_THAT(Outcomes(Undo()), ElementsAre(Outcome::kDone));
  EXPECT_EQ(store_.values[kRmem], "100");
}

TEST_F(TuneChangesTest, ARefusedUndoStaysInTheFile) {
  Apply({{kRmem, "400"}, {kWmem, "500"}});
  store_.refused = {kRmem};
  EXPECT_THAT(Outcomes(Undo()), ElementsAre(Outcome::kDone, Outcome::kFailed));
  ASSERT_THAT(Open().entries(), SizeIs(1));
  store_.refused.clear();
  Undo();
  EXPECT_EQ(store_.values[kRmem], "100");
}

TEST_F(TuneChangesTest, NothingIsChangedThatCannotBeNoted) {
  UndoFile file = Open();
  std::filesystem::remove_all(folder_ + "/state");
  const auto results = ApplyChanges(
      [] {
        return std::vector<Change>{{kRmem, "400"}};
      },
      store_, file);
  EXPECT_THAT(Outcomes(results), ElementsAre(Outcome::kFailed));
  EXPECT_THAT(store_.written, IsEmpty());
}

TEST_F(TuneChangesTest, QueuesAreSetBeforeWhatIsEachQueues) {
  UndoFile file = Open();
  const auto find = [&] {
    std::vector<Change> changes = {{kGro, "on"}, {kQueues, "2"}};
    if (store_.values[kQueues] == "2") {
      store_.values.emplace(kSteering, "0");
      changes.push_back({kSteering, "3"});
    }
    return changes;
  };
  const auto results = ApplyChanges(find, store_, file);
  EXPECT_THAT(Outcomes(results), ElementsAre(Outcome::kDone, Outcome::kDone, Outcome::kDone));
  EXPECT_THAT(store_.written, ElementsAre(kQueues, kGro, kSteering));
}

// --- The file itself ---

TEST_F(TuneChangesTest, ADamagedFileIsRefusedAndKept) {
  for (const char* text :
       {"", "{", "[]", "null", "{}", R"({"version": 2, "changes": []})",
        R"({"version": "1", "changes": []})", R"({"version": 1})",
        R"({"version": 1, "changes": [7]})", R"({"version": 1, "changes": [{"kind": "file"}]})",
        R"({"version": 1, "changes": [{"kind": "odd", "before": "1", "ours": []}]})",
        R"({"version": 1, "changes": [{"kind": "file", "before": 1, "ours": []}]})",
        R"({"version": 1, "changes": [{"kind": "file", "before": "1", "ours": [2]}]})"}) {
    Write(text);
    EXPECT_THAT(Refusal(), HasSubstr("damaged")) << text;
    EXPECT_EQ(Text(), text);
  }
}

TEST_F(TuneChangesTest, AFileThatWouldChangeSomethingElseIsRefused) {
  Write(R"({"version": 1, "network_namespace": "net:[1]", "changes": [
      {"kind": "file", "device": "", "name": "/etc/shadow", "before": "x", "ours": ["y"]}]})");
  EXPECT_THAT(Refusal(), HasSubstr("/etc/shadow"));
}

TEST_F(TuneChangesTest, AFileThatOthersCouldReadOrWriteIsRefused) {
  Apply({{kRmem, "400"}});
  ASSERT_EQ(chmod(path_.c_str(), 0622), 0);
  EXPECT_THAT(Refusal(), HasSubstr("chmod 600"));
}

TEST_F(TuneChangesTest, AFileOfAnotherNetworkNamespaceIsRefused) {
  Apply({{kGro, "on"}});
  EXPECT_THAT(Refusal("net:[2]"), HasSubstr("net:[1]"));
  EXPECT_EQ(Refusal(), "accepted");
}

TEST_F(TuneChangesTest, OfTwoAtOnceOneWaitsForTheOther) {
  std::optional<UndoFile> first = Open();
  auto second = std::async(std::launch::async,
                           [this] { return UndoFile::Open(path_, kNetwork, true).status(); });
  EXPECT_EQ(second.wait_for(std::chrono::milliseconds(100)), std::future_status::timeout);
  EXPECT_TRUE(UndoFile::Open(path_ + ".other", kNetwork, true).ok()) << "that is another file";
  first.reset();
  EXPECT_EQ(second.get(), absl::OkStatus());
}

TEST_F(TuneChangesTest, WithoutAFileThereIsNothingToUndo) {
  const auto file = UndoFile::Open(path_, kNetwork, false);
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_THAT(file->entries(), IsEmpty());
  EXPECT_FALSE(std::filesystem::exists(folder_ + "/state"));
}

}  // namespace
}  // namespace braid::tune_changes_test
