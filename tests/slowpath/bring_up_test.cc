// Changes of a machine that may fail, and what is left of them.
#include "slowpath/bring_up.h"

#include <gtest/gtest.h>
#include <sys/fsuid.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>

namespace braid::bring_up_test {
namespace {

HostChange RuleOf(uint32_t priority) {
  return OwnRule{IpAddress::Family::kV4, priority, 0xb7a1, 47009};
}

// A machine that does what it is told, until it is to fail.
class FakeHost final : public Host {
 public:
  absl::StatusOr<Sysctl> LookAtSysctl(const std::string& path, const std::string& ours) override {
    const auto found = sysctls.find(path);
    if (found == sysctls.end()) return absl::NotFoundError(path);
    return Sysctl{path, found->second, ours};
  }
  absl::StatusOr<ReplacedFile> LookAtFile(const std::string& path,
                                          const std::string& ours) override {
    return ReplacedFile{.path = path, .existed = true, .before = file, .ours = ours};
  }
  absl::Status Make(const HostChange& change) override {
    if (Fails()) return absl::UnavailableError("make");
    if (exists) return absl::AlreadyExistsError("make");
    made.push_back(change);
    if (const auto* sysctl = std::get_if<Sysctl>(&change)) sysctls[sysctl->path] = sysctl->ours;
    if (const auto* replaced = std::get_if<ReplacedFile>(&change)) file = replaced->ours;
    return absl::OkStatus();
  }
  absl::Status TakeBack(const HostChange& change) override {
    users.push_back(setfsuid(UINT32_MAX));
    if (Fails()) return absl::UnavailableError("take back");
    if (changed_since) return ChangedSince(change);
    taken_back.push_back(change);
    std::erase(made, change);
    return absl::OkStatus();
  }

  absl::Status Replace(const NftTable& table) override {
    if (Fails()) return absl::UnavailableError("replace");
    std::erase_if(made, [&table](const HostChange& one) {
      const auto* other = std::get_if<NftTable>(&one);
      return other != nullptr && other->name == table.name;
    });
    made.push_back(table);
    return absl::OkStatus();
  }
  absl::StatusOr<bool> IsThere(const HostChange& change) override {
    return std::find(made.begin(), made.end(), change) != made.end() ||
           (exists && std::holds_alternative<NftTable>(change));
  }
  absl::StatusOr<std::vector<HostChange>> Missing(const std::vector<HostChange>& changes) override {
    std::vector<HostChange> missing;
    for (const HostChange& change : changes) {
      if (!*IsThere(change)) missing.push_back(change);
    }
    return missing;
  }

  std::vector<HostChange> made;
  std::vector<HostChange> taken_back;  // in their order
  std::map<std::string, std::string> sysctls;
  std::string file;        // the contents of the only one
  std::vector<int> users;  // with whose rights something was taken back
  int fails_at = -1;       // of the calls from now on, from 0
  bool exists = false;
  bool changed_since = false;

 private:
  bool Fails() { return fails_at-- == 0; }
};

class BringUpTest : public ::testing::Test {
 protected:
  BringUpTest() {
    std::string name = (std::filesystem::temp_directory_path() / "braid-bring-up-XXXXXX").string();
    folder_ = mkdtemp(name.data());
    path_ = JournalPath(folder_, "braid0");
    Begin();
  }
  ~BringUpTest() override {
    bring_up_.reset();
    std::filesystem::remove_all(folder_);
  }

  // As another process would after this one.
  void Begin() {
    bring_up_.reset();
    auto journal = Journal::Open(path_);
    ASSERT_TRUE(journal.ok()) << journal.status();
    bring_up_.emplace(host_, *std::move(journal),
                      [this](const std::string& line) { reports_.push_back(line); });
  }

  FakeHost host_;
  std::string folder_;
  std::string path_;
  std::optional<BringUp> bring_up_;
  std::vector<std::string> reports_;
};

TEST_F(BringUpTest, TakesAllBackInReverseOrder) {
  for (const uint32_t n : {1u, 2u, 3u}) ASSERT_TRUE(bring_up_->Make(RuleOf(n)).ok());
  ASSERT_TRUE(bring_up_->TakeBackAll().ok());
  EXPECT_EQ(host_.taken_back, (std::vector<HostChange>{RuleOf(3), RuleOf(2), RuleOf(1)}));
  EXPECT_TRUE(bring_up_->changes().empty());
}

TEST_F(BringUpTest, AnotherProcessTakesBackWhatOneThatDiedHasMade) {
  for (const uint32_t n : {1u, 2u}) ASSERT_TRUE(bring_up_->Make(RuleOf(n)).ok());
  Begin();
  ASSERT_TRUE(bring_up_->TakeBackAll().ok());
  EXPECT_TRUE(host_.made.empty());
}

TEST_F(BringUpTest, OfAChangeThatFailsNothingIsLeft) {
  ASSERT_TRUE(bring_up_->Make(RuleOf(1)).ok());
  host_.fails_at = 0;
  EXPECT_TRUE(absl::IsUnavailable(bring_up_->Make(RuleOf(2))));
  EXPECT_EQ(host_.taken_back, std::vector<HostChange>{RuleOf(2)}) << "it may have been half made";
  EXPECT_EQ(bring_up_->changes(), std::vector<HostChange>{RuleOf(1)});
}

TEST_F(BringUpTest, WhatWasThereBeforeIsNotTakenAway) {
  host_.exists = true;
  EXPECT_TRUE(absl::IsAlreadyExists(bring_up_->Make(RuleOf(1))));
  EXPECT_TRUE(host_.taken_back.empty());
  EXPECT_TRUE(bring_up_->changes().empty());
}

TEST_F(BringUpTest, WhatCannotBeTakenBackStaysInTheJournalAndTheRestGoes) {
  for (const uint32_t n : {1u, 2u, 3u}) ASSERT_TRUE(bring_up_->Make(RuleOf(n)).ok());
  host_.fails_at = 1;
  EXPECT_TRUE(absl::IsUnavailable(bring_up_->TakeBackAll()));
  EXPECT_EQ(bring_up_->changes(), std::vector<HostChange>{RuleOf(2)});
  EXPECT_EQ(reports_.size(), 1u);
  Begin();
  EXPECT_TRUE(bring_up_->TakeBackAll().ok()) << "the next one gets it done";
  EXPECT_TRUE(host_.made.empty());
}

TEST_F(BringUpTest, WhatSomebodyHasChangedSinceIsLetGoAndTold) {
  ASSERT_TRUE(bring_up_->Make(RuleOf(1)).ok());
  host_.changed_since = true;
  EXPECT_TRUE(bring_up_->TakeBackAll().ok());
  EXPECT_TRUE(bring_up_->changes().empty());
  ASSERT_EQ(reports_.size(), 1u);
  EXPECT_NE(reports_[0].find("was changed by somebody else since"), std::string::npos);
}

TEST_F(BringUpTest, ATableOfSomebodyElsesIsNeitherUsedNorTakenAway) {
  host_.exists = true;
  const HostChange table = NftTable{"inet", "braid_braid0", "[]"};
  EXPECT_TRUE(absl::IsAlreadyExists(bring_up_->Make(table)));
  EXPECT_TRUE(bring_up_->changes().empty());
}

TEST_F(BringUpTest, ATableIsReplacedInItsPlaceInTheJournal) {
  const NftTable before{"inet", "braid_braid0", "[]"}, now{"inet", "braid_braid0", "[1]"};
  ASSERT_TRUE(bring_up_->Make(before).ok());
  ASSERT_TRUE(bring_up_->Make(RuleOf(1)).ok());
  ASSERT_TRUE(bring_up_->Replace(before, now).ok());
  EXPECT_EQ(bring_up_->changes(), (std::vector<HostChange>{now, RuleOf(1)}));
}

TEST_F(BringUpTest, SomeAreTakenBackTheLastOfThemFirst) {
  for (const uint32_t n : {1u, 2u, 3u, 4u}) ASSERT_TRUE(bring_up_->Make(RuleOf(n)).ok());
  host_.fails_at = 1;
  EXPECT_TRUE(absl::IsUnavailable(bring_up_->TakeBack({RuleOf(1), RuleOf(2), RuleOf(4)})));
  EXPECT_EQ(host_.taken_back, (std::vector<HostChange>{RuleOf(4), RuleOf(1)}));
  EXPECT_EQ(bring_up_->changes(), (std::vector<HostChange>{RuleOf(2), RuleOf(3)}));
}

TEST_F(BringUpTest, OfManyThoseBeforeTheOneThatFailsStand) {
  host_.fails_at = 1;
  EXPECT_TRUE(absl::IsUnavailable(
      bring_up_->Make(std::vector<HostChange>{RuleOf(1), RuleOf(2), RuleOf(3)})));
  EXPECT_EQ(bring_up_->changes(), std::vector<HostChange>{RuleOf(1)});
  EXPECT_EQ(host_.made, std::vector<HostChange>{RuleOf(1)});
}

TEST_F(BringUpTest, ASysctlThatIsWellIsNoChange) {
  host_.sysctls["/proc/sys/net/x"] = "1";
  ASSERT_TRUE(bring_up_->SetSysctl("/proc/sys/net/x", "1").ok());
  EXPECT_TRUE(bring_up_->changes().empty());
  ASSERT_TRUE(bring_up_->SetSysctl("/proc/sys/net/x", "2").ok());
  EXPECT_EQ(bring_up_->changes(), std::vector<HostChange>{Sysctl({"/proc/sys/net/x", "1", "2"})});
  EXPECT_TRUE(absl::IsNotFound(bring_up_->SetSysctl("/proc/sys/net/y", "1")));
}

TEST_F(BringUpTest, WhatIsSetAnewKeepsWhatWasBeforeBraid) {
  host_.sysctls["/proc/sys/net/x"] = "0";
  ASSERT_TRUE(bring_up_->SetSysctl("/proc/sys/net/x", "1").ok());
  for (int i = 0; i < 3; ++i) {
    host_.sysctls["/proc/sys/net/x"] = "7";
    ASSERT_TRUE(bring_up_->SetSysctl("/proc/sys/net/x", "1").ok());
    EXPECT_EQ(host_.sysctls["/proc/sys/net/x"], "1");
  }
  EXPECT_EQ(bring_up_->changes(), std::vector<HostChange>{Sysctl({"/proc/sys/net/x", "0", "1"})});
}

TEST_F(BringUpTest, OfAFileThatOthersWriteTheNewestComesBack) {
  const auto replaced = [](const char* before, const char* ours) {
    return std::vector<HostChange>{
        ReplacedFile{.path = "/etc/resolv.conf", .existed = true, .before = before, .ours = ours}};
  };
  for (const char* before : {"a", "b", "c"}) {
    host_.file = before;
    ASSERT_TRUE(bring_up_->ReplaceFile("/etc/resolv.conf", "ours").ok());
    EXPECT_EQ(host_.file, "ours");
    EXPECT_EQ(bring_up_->changes(), replaced(before, "ours"));
  }
  host_.file = "d";
  host_.fails_at = 0;
  EXPECT_TRUE(absl::IsUnavailable(bring_up_->ReplaceFile("/etc/resolv.conf", "ours")));
  EXPECT_TRUE(bring_up_->changes().empty()) << "it is as it was";
}

// In place a file is emptied first.
TEST_F(BringUpTest, AFileThatWasHalfWrittenDoesNotTakeThePlaceOfTheOneFromBefore) {
  const auto replaced = ReplacedFile{
      .path = "/etc/resolv.conf", .existed = true, .before = "nameserver a", .ours = "ours"};
  host_.file = "nameserver a";
  ASSERT_TRUE(bring_up_->ReplaceFile("/etc/resolv.conf", "ours").ok());
  for (const char* left : {"", "ou", "names", "nameserver a"}) {
    host_.file = left;
    ASSERT_TRUE(bring_up_->ReplaceFile("/etc/resolv.conf", "ours").ok());
    EXPECT_EQ(bring_up_->changes(), std::vector<HostChange>{replaced}) << left;
  }
}

// Whoever may write the journal has root do no more to files than it may do itself.
TEST_F(BringUpTest, RootTakesBackFilesOfAnothersJournalWithThatOnesRights) {
  if (geteuid() != 0) GTEST_SKIP() << "of root";
  const HostChange file = ReplacedFile{.path = "/etc/resolv.conf", .ours = "x"};
  ASSERT_TRUE(bring_up_->Make(RuleOf(1)).ok());
  ASSERT_TRUE(bring_up_->Make(file).ok());
  ASSERT_EQ(chown(path_.c_str(), 4711, 4711), 0);
  Begin();
  ASSERT_TRUE(bring_up_->TakeBackAll().ok());
  EXPECT_EQ(host_.users, (std::vector<int>{4711, 0}));
  EXPECT_EQ(setfsuid(UINT32_MAX), 0);
  // A journal of root's in somebody's folder may have been laid there.
  ASSERT_TRUE(bring_up_->Make(file).ok());
  ASSERT_EQ(chown(folder_.c_str(), 4711, 4711), 0);
  Begin();
  host_.users.clear();
  ASSERT_TRUE(bring_up_->TakeBackAll().ok());
  EXPECT_EQ(host_.users, std::vector<int>{4711});
  // What this process itself has made it takes back as itself.
  ASSERT_TRUE(bring_up_->Make(file).ok());
  host_.users.clear();
  ASSERT_TRUE(bring_up_->TakeBackAll().ok());
  EXPECT_EQ(host_.users, std::vector<int>{0});
}

TEST_F(BringUpTest, WhatStaysAsSomebodyHasChangedItIsToldApart) {
  for (const uint32_t n : {1u, 2u}) ASSERT_TRUE(bring_up_->Make(RuleOf(n)).ok());
  ASSERT_TRUE(bring_up_->TakeBack({RuleOf(2)}).ok());
  EXPECT_TRUE(bring_up_->changed_since().empty());
  host_.changed_since = true;
  ASSERT_TRUE(bring_up_->TakeBackAll().ok());
  EXPECT_EQ(bring_up_->changed_since(), std::vector<HostChange>{RuleOf(1)});
}

TEST_F(BringUpTest, AFolderThatCannotBeReadHasNotJustNoJournals) {
  ASSERT_TRUE(bring_up_->Make(RuleOf(1)).ok());
  EXPECT_EQ(*JournalsIn(folder_), std::vector<std::string>{path_});
  EXPECT_TRUE(absl::IsNotFound(JournalsIn(folder_ + "/mistyped").status()));
}

TEST_F(BringUpTest, OfAnotherBootOnlyFilesAreTakenBack) {
  const HostChange file = ReplacedFile{.path = "/etc/resolv.conf", .ours = "x"};
  ASSERT_TRUE(bring_up_->Make(RuleOf(1)).ok());
  ASSERT_TRUE(bring_up_->Make(file).ok());
  bring_up_.reset();
  std::ifstream in(path_);
  std::string text((std::istreambuf_iterator<char>(in)), {});
  const size_t at = text.find(WhereaboutsOfThisProcess().boot);
  ASSERT_NE(at, text.npos);
  text.replace(at, 8, "00000000");
  std::ofstream(path_) << text;
  Begin();
  ASSERT_TRUE(bring_up_->TakeBackAll().ok());
  EXPECT_EQ(host_.taken_back, std::vector<HostChange>{file});
  EXPECT_TRUE(bring_up_->changes().empty());
}

}  // namespace
}  // namespace braid::bring_up_test
