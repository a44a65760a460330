// What bring-up has changed, on disk.
#include "slowpath/journal.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

namespace braid::journal_test {
namespace {

IpPrefix Prefix(const char* text) { return IpPrefix::Parse(text).value(); }

const HostChange kThrow = OwnRoute{OwnRoute::Type::kThrow, Prefix("192.168.1.0/24"), 47009, ""};
const HostChange kThrough =
    OwnRoute{OwnRoute::Type::kThroughDevice, Prefix("::/0"), 47009, "braid0"};
const HostChange kRule = OwnRule{IpAddress::Family::kV6, 32000, 0xb7a1, 47009};
const HostChange kTable = NftTable{"inet", "braid_braid0", "[]"};
const HostChange kSysctl = Sysctl{"/proc/sys/net/ipv4/conf/eth0.1/rp_filter", "1", "2"};
const HostChange kFile =
    ReplacedFile{.path = "/etc/resolv.conf",
                 .existed = true,
                 .before = std::string("nameserver 192.0.2.1\n\xff\0", 23),
                 .mode = 0640,
                 .owner = 12,
                 .group = 34,
                 .xattrs = {{"security.selinux", std::string("a:b\0", 4)}, {"user.note", "\xff"}},
                 .ours = "nameserver 10.77.0.1\n"};
const HostChange kLink = ReplacedFile{.path = "/etc/resolv.conf",
                                      .existed = true,
                                      .link_target = "../run/x",
                                      .owner = 7,
                                      .group = 8,
                                      .xattrs = {{"security.selinux", "c"}},
                                      .ours = "y"};
const HostChange kNewFile = ReplacedFile{.path = "/etc/resolv.conf", .ours = "y"};

class JournalTest : public ::testing::Test {
 protected:
  JournalTest() {
    std::string name = (std::filesystem::temp_directory_path() / "braid-journal-XXXXXX").string();
    folder_ = mkdtemp(name.data());
    path_ = folder_ + "/bring-up-braid0.json";
  }
  ~JournalTest() override { std::filesystem::remove_all(folder_); }

  Journal Open() {
    auto journal = Journal::Open(path_);
    EXPECT_TRUE(journal.ok()) << journal.status();
    return *std::move(journal);
  }

  std::string folder_;
  std::string path_;
};

TEST_F(JournalTest, WhatWasNotedIsThereAfterACrash) {
  const std::vector<HostChange> all = {kThrow,  kThrough, kRule, kTable,
                                       kSysctl, kFile,    kLink, kNewFile};
  {
    Journal journal = Open();
    journal.BeginHere();
    for (const HostChange& change : all) ASSERT_TRUE(journal.Note({change}).ok());
  }
  const Journal journal = Open();
  EXPECT_EQ(journal.changes(), all);
  EXPECT_EQ(journal.where(), WhereaboutsOfThisProcess());
}

TEST_F(JournalTest, WhatWasStruckOutIsNot) {
  {
    Journal journal = Open();
    ASSERT_TRUE(journal.Note({kThrow, kRule, kThrow}).ok());
    ASSERT_TRUE(journal.StrikeOut({kThrow}).ok());
    ASSERT_TRUE(journal.StrikeOut({kSysctl}).ok()) << "which was never there";
  }
  EXPECT_EQ(Open().changes(), (std::vector<HostChange>{kThrow, kRule}));
}

TEST_F(JournalTest, WithoutChangesThereIsNoFile) {
  Journal journal = Open();
  EXPECT_FALSE(std::filesystem::exists(path_));
  ASSERT_TRUE(journal.Note({kRule}).ok());
  EXPECT_TRUE(std::filesystem::exists(path_));
  ASSERT_TRUE(journal.StrikeOut({kRule}).ok());
  EXPECT_FALSE(std::filesystem::exists(path_));
}

TEST_F(JournalTest, OneHasItAtATime) {
  const Journal journal = Open();
  EXPECT_TRUE(absl::IsAlreadyExists(Journal::Open(path_).status()));
}

TEST_F(JournalTest, ALockThatCannotBeHadIsNotTakenForAnotherDaemons) {
  std::filesystem::create_directory(path_ + ".lock");
  const absl::Status status = Journal::Open(path_).status();
  EXPECT_FALSE(status.ok());
  EXPECT_FALSE(absl::IsAlreadyExists(status)) << status;
}

TEST_F(JournalTest, WhatRootWritesIsTheFolders) {
  if (geteuid() != 0) GTEST_SKIP() << "of root";
  ASSERT_EQ(chown(folder_.c_str(), 4711, 4712), 0);
  Journal journal = Open();
  ASSERT_TRUE(journal.Note({kRule}).ok());
  for (const std::string& path : {path_, path_ + ".lock"}) {
    struct stat file {};
    ASSERT_EQ(stat(path.c_str(), &file), 0) << path;
    EXPECT_EQ(file.st_uid, 4711u) << path;
    EXPECT_EQ(file.st_gid, 4712u) << path;
  }
}

TEST_F(JournalTest, NamesMayBeAnyBytes) {
  const std::vector<HostChange> all = {
      OwnRoute{OwnRoute::Type::kThroughDevice, Prefix("::/0"), 47009, "br\xff\xfe"},
      Sysctl{"/proc/sys/net/ipv4/conf/\x80/forwarding", "0", "1"},
      ReplacedFile{
          .path = "/etc/resolv.conf", .existed = true, .link_target = "/run/\xc3", .ours = "y"}};
  ASSERT_TRUE(Open().Note(all).ok());
  EXPECT_EQ(Open().changes(), all);
}

// Of other users' processes an ordinary user sees no network.
TEST(IsNetworkAlive, ANetworkOfBeforeAllProcessesIsGone) {
  const Whereabouts here = WhereaboutsOfThisProcess();
  EXPECT_NE(here.init, "");
  EXPECT_TRUE(IsNetworkAlive(here, here));
  Whereabouts gone = here;
  gone.network_namespace = "net:[1]";
  gone.init = "0";
  EXPECT_FALSE(IsNetworkAlive(gone, here));
}

TEST_F(JournalTest, OneThatIsDamagedIsRefusedAndStays) {
  for (const char* text :
       {"", "{", "[]", "{\"version\":2,\"boot\":\"\",\"network_namespace\":\"\",\"changes\":[]}",
        "{\"version\":1,\"boot\":\"\",\"network_namespace\":\"\",\"changes\":[{}]}",
        "{\"version\":1,\"boot\":\"\",\"network_namespace\":\"\",\"changes\":[{\"rm\":{}}]}"}) {
    std::ofstream(path_) << text;
    std::filesystem::permissions(path_, std::filesystem::perms(0600));
    const auto journal = Journal::Open(path_);
    EXPECT_TRUE(absl::IsDataLoss(journal.status())) << text;
    EXPECT_TRUE(std::filesystem::exists(path_));
  }
}

// Whoever can write the file is not to have other things undone.
TEST(HostChange, IsOnlyWhatBringUpMakes) {
  using Json = nlohmann::ordered_json;
  EXPECT_FALSE(HostChangeFrom(
      Json::parse(R"({"nft_table": {"family": "inet", "name": "filter", "contents": "[]"}})")));
  EXPECT_FALSE(HostChangeFrom(Json::parse(
      R"({"sysctl": {"path": "/proc/sys/kernel/core_pattern", "before": "x", "ours": "y"}})")));
  EXPECT_FALSE(HostChangeFrom(Json::parse(
      R"({"sysctl": {"path": "/proc/sys/net/../kernel/x", "before": "x", "ours": "y"}})")));
  for (const char* path :
       {"/proc/sys/net/core/bpf_jit_enable", "/proc/sys/net/ipv4/conf/forwarding",
        "/proc/sys/net/ipv4/conf//forwarding", "/proc/sys/net/ipv4/conf/../forwarding",
        "/proc/sys/net/ipv4/conf/a/../../forwarding", "/proc/sys/net/ipv4/conf/eth0/accept_local",
        "/proc/sys/net/ipv4/ip_forward"}) {
    const Json sysctl = {{"path", path}, {"before", "0"}, {"ours", "1"}};
    EXPECT_FALSE(HostChangeFrom(Json{{"sysctl", sysctl}})) << path;
  }
  EXPECT_FALSE(HostChangeFrom(Json::parse(R"({"file": {"path": "etc/passwd", "ours": ""}})")));
  EXPECT_FALSE(HostChangeFrom(Json::parse(
      R"({"file": {"path": "/etc/resolv.conf", "ours": "", "before": "", "mode": 2541,
                   "owner": 0, "group": 0}})")))
      << "setuid, and to be run";
  EXPECT_FALSE(HostChangeFrom(Json::parse(
      R"({"file": {"path": "/etc/resolv.conf", "ours": "", "before": "", "mode": 420, "owner": 0,
                   "group": 0, "xattrs": {"security.capability": "AQ=="}}})")));
  EXPECT_FALSE(
      HostChangeFrom(Json::parse(R"({"route": {"to": "10.0.0.0/8", "table": 4294967296}})")));
  for (const HostChange& change :
       {kThrow, kThrough, kRule, kTable, kSysctl, kFile, kLink, kNewFile}) {
    EXPECT_EQ(HostChangeFrom(ToJson(change)), change) << Describe(change);
  }
}

}  // namespace
}  // namespace braid::journal_test
