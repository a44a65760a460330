// Files of this machine that are replaced, and put back.
#include "slowpath/host.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <fstream>
#include <thread>
#include <vector>

#include "slowpath/small_file.h"

namespace braid::host_test {
namespace {

// Of the version 2 that the kernel takes: its owner, the user 1, its group and others may read.
constexpr char kAccessList[] =
    "\2\0\0\0"
    "\1\0\6\0\xff\xff\xff\xff"
    "\2\0\4\0\1\0\0\0"
    "\4\0\4\0\xff\xff\xff\xff"
    "\x10\0\4\0\xff\xff\xff\xff"
    "\x20\0\4\0\xff\xff\xff\xff";

class HostTest : public ::testing::Test {
 protected:
  HostTest() {
    std::string name = (std::filesystem::temp_directory_path() / "braid-host-XXXXXX").string();
    folder_ = mkdtemp(name.data());
    path_ = folder_ + "/resolv.conf";
  }
  ~HostTest() override { std::filesystem::remove_all(folder_); }

  // What there is, as somebody sees who looks closely.
  struct Seen {
    mode_t mode = 0;
    uid_t owner = 0;
    gid_t group = 0;
    Xattrs xattrs;
    std::string contents;  // or where the link leads

    bool operator==(const Seen&) const = default;
  };
  static Seen Look(const std::string& path) {
    struct stat file {};
    EXPECT_EQ(lstat(path.c_str(), &file), 0) << path;
    Seen seen{file.st_mode, file.st_uid, file.st_gid, ReadXattrs(path), ""};
    seen.contents = S_ISLNK(file.st_mode)
                        ? std::filesystem::read_symlink(path).string()
                        : ReadSmallFile(path, 1000, FilePrivacy::kAny).value_or("?");
    return seen;
  }

  void Write(const std::string& path, const char* text) { std::ofstream(path) << text; }
  // Where this file system, or this process, cannot have one, there is none to be kept.
  static void Give(const std::string& path, const char* name, std::string_view value) {
    lsetxattr(path.c_str(), name, value.data(), value.size(), 0);
  }

  ReplacedFile Replace() {
    auto file = host_.LookAtFile(path_, "ours\n");
    EXPECT_TRUE(file.ok()) << file.status();
    EXPECT_EQ(host_.Make(*file), absl::OkStatus());
    EXPECT_EQ(ReadSmallFile(path_, 1000, FilePrivacy::kAny).value_or(""), "ours\n");
    return *file;
  }

  ThisHost host_;
  std::string folder_;
  std::string path_;
};

TEST_F(HostTest, AFileKeepsItsOwnerModeLabelAndAccessList) {
  Write(path_, "before\n");
  ASSERT_EQ(chown(path_.c_str(), 12, 34), 0);
  ASSERT_EQ(chmod(path_.c_str(), 0640), 0);
  Give(path_, "security.selinux", std::string_view("system_u:object_r:net_conf_t:s0\0", 32));
  Give(path_, "system.posix_acl_access", {kAccessList, sizeof(kAccessList) - 1});
  Give(path_, "user.note", "mine");
  const Seen before = Look(path_);
  const ReplacedFile file = Replace();
  Seen ours = Look(path_);
  EXPECT_EQ(ours.contents, "ours\n");
  ours.contents = before.contents;
  EXPECT_EQ(ours, before) << "but for the contents";
  ASSERT_EQ(host_.TakeBack(file), absl::OkStatus());
  EXPECT_EQ(Look(path_), before);
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder_), {}), 1);
}

TEST_F(HostTest, ALinkKeepsItsOwnerAndLabelAndItsTargetStays) {
  const std::string target = folder_ + "/real";
  Write(target, "before\n");
  Give(target, "security.selinux", "of the target");
  std::filesystem::create_symlink("real", path_);
  ASSERT_EQ(lchown(path_.c_str(), 12, 34), 0);
  Give(path_, "security.selinux", "of the link");
  const Seen link = Look(path_), real = Look(target);
  const ReplacedFile file = Replace();
  const Seen ours = Look(path_);
  EXPECT_EQ(ours.mode & 07777u, 0644u);
  EXPECT_EQ(ours.xattrs, real.xattrs) << "who could read where it led can read what is there now";
  EXPECT_EQ(Look(target), real);
  ASSERT_EQ(host_.TakeBack(file), absl::OkStatus());
  EXPECT_EQ(Look(path_), link);
  EXPECT_EQ(Look(target), real);
}

TEST_F(HostTest, ALinkThatLeadsNowhereIsPutBack) {
  std::filesystem::create_symlink("nowhere", path_);
  const ReplacedFile file = Replace();
  ASSERT_EQ(host_.TakeBack(file), absl::OkStatus());
  EXPECT_EQ(std::filesystem::read_symlink(path_), "nowhere");
}

// Such a folder gives what is made in it an access list.
TEST_F(HostTest, NoAccessListComesFromTheFolder) {
  Write(path_, "before\n");
  Give(folder_, "system.posix_acl_default", {kAccessList, sizeof(kAccessList) - 1});
  const Seen before = Look(path_);
  const ReplacedFile file = Replace();
  EXPECT_EQ(Look(path_).xattrs, before.xattrs);
  ASSERT_EQ(host_.TakeBack(file), absl::OkStatus());
  EXPECT_EQ(Look(path_), before);
}

TEST_F(HostTest, WhereThereWasNoFileThereIsNoneAgain) {
  const ReplacedFile file = Replace();
  EXPECT_EQ(Look(path_).mode & 07777u, 0644u);
  ASSERT_EQ(host_.TakeBack(file), absl::OkStatus());
  EXPECT_TRUE(std::filesystem::is_empty(folder_));
}

TEST_F(HostTest, AFileThatMayBeRunComesBackWithoutThat) {
  Write(path_, "before\n");
  ASSERT_EQ(chmod(path_.c_str(), 04755), 0);
  const ReplacedFile file = Replace();
  EXPECT_EQ(Look(path_).mode & 07777u, 0644u);
  ASSERT_EQ(host_.TakeBack(file), absl::OkStatus());
  EXPECT_EQ(Look(path_).mode & 07777u, 0644u);
}

// Root for another: what that one may write is written in place, and nothing else.
TEST_F(HostTest, AsAnotherUserNoMoreIsDoneThanThatOneMay) {
  if (geteuid() != 0) GTEST_SKIP() << "of root";
  ASSERT_EQ(chmod(folder_.c_str(), 0755), 0);
  Write(path_, "before\n");
  ASSERT_EQ(chown(path_.c_str(), 4711, 0), 0);
  ASSERT_EQ(chmod(path_.c_str(), 0644), 0);
  const Seen before = Look(path_);
  const ReplacedFile file = Replace();
  ReplacedFile forged = file;
  forged.link_target = "/etc/shadow";
  ReplacedFile absent = file;
  absent.existed = false;
  {
    const FilesAs other(4711, 4711);
    ASSERT_EQ(other.status(), absl::OkStatus());
    EXPECT_TRUE(absl::IsPermissionDenied(host_.TakeBack(forged)));
    EXPECT_TRUE(absl::IsPermissionDenied(host_.TakeBack(absent)));
    EXPECT_EQ(host_.TakeBack(file), absl::OkStatus());
  }
  EXPECT_EQ(Look(path_), before);
  const ReplacedFile again = Replace();
  ASSERT_EQ(chmod(path_.c_str(), 0600), 0);
  ASSERT_EQ(chown(path_.c_str(), 0, 0), 0);
  {
    const FilesAs other(4711, 4711);
    EXPECT_FALSE(host_.TakeBack(again).ok()) << "it is root's";
  }
  EXPECT_EQ(Look(path_).contents, "ours\n");
  EXPECT_EQ(host_.TakeBack(again), absl::OkStatus()) << "and root is itself again";
}

// Whoever else writes the same file at the same time.
TEST_F(HostTest, WritersOfOneFileDoNotMix) {
  std::vector<std::thread> all;
  for (int i = 0; i < 8; ++i) {
    all.emplace_back([this, i] {
      for (int n = 0; n < 10; ++n) {
        EXPECT_EQ(ReplaceSmallFile(path_, std::string(5000, static_cast<char>('a' + i))),
                  absl::OkStatus());
      }
    });
  }
  for (std::thread& one : all) one.join();
  const std::string contents = ReadSmallFile(path_, 10'000, FilePrivacy::kOwnerOnly).value_or("");
  EXPECT_EQ(contents, std::string(5000, contents.empty() ? 'x' : contents[0]));
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder_), {}), 1);
  ASSERT_TRUE(std::filesystem::create_directory(folder_ + "/in-the-way"));
  EXPECT_FALSE(ReplaceSmallFile(folder_ + "/in-the-way", "x").ok());
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder_), {}), 2)
      << "of what fails nothing is left";
}

TEST_F(HostTest, ADeviceThatTakesNothingIsFull) {
  const UniqueFd full(open("/dev/full", O_WRONLY | O_CLOEXEC));
  if (!full) GTEST_SKIP() << "there is no /dev/full";
  EXPECT_FALSE(WriteAll(full.get(), "x"));
  EXPECT_EQ(errno, ENOSPC);
}

TEST_F(HostTest, WhatSomebodyHasWrittenSinceStays) {
  Write(path_, "before\n");
  const ReplacedFile file = Replace();
  Write(path_, "theirs\n");
  EXPECT_TRUE(IsChangedSince(host_.TakeBack(file)));
  EXPECT_EQ(Look(path_).contents, "theirs\n");
}

}  // namespace
}  // namespace braid::host_test
