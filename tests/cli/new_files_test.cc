#include "cli/new_files.h"

#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

#include "absl/status/status.h"

namespace braid::new_files_test {
namespace {

namespace fs = std::filesystem;

class NewFilesTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string name = (fs::temp_directory_path() / "new-files-XXXXXX").string();
    ASSERT_NE(mkdtemp(name.data()), nullptr);
    folder_ = name;
  }
  void TearDown() override { fs::remove_all(folder_); }

  std::string Path(const std::string& name) const { return (folder_ / name).string(); }
  std::string Read(const std::string& name) const {
    std::ifstream file(Path(name));
    return {std::istreambuf_iterator<char>(file), {}};
  }
  mode_t ModeOf(const std::string& name) const {
    struct stat info {};
    EXPECT_EQ(stat(Path(name).c_str(), &info), 0);
    return info.st_mode & 07777;
  }

  fs::path folder_;
};

TEST_F(NewFilesTest, AreMadeWithTheirFoldersAndModes) {
  auto made = NewFiles::Create({{Path("a/b/secret"), "1"}, {Path("a/plain"), "22", 0644}});
  ASSERT_TRUE(made.ok()) << made.status();
  made->Keep();
  made = absl::UnknownError("gone");
  EXPECT_EQ(Read("a/b/secret"), "1");
  EXPECT_EQ(Read("a/plain"), "22");
  EXPECT_EQ(ModeOf("a/b/secret"), 0600u);
  EXPECT_EQ(ModeOf("a/plain"), 0644u);
  EXPECT_EQ(ModeOf("a/b"), 0700u);
}

TEST_F(NewFilesTest, WhatExistsStaysAndNothingElseIsLeft) {
  std::ofstream(Path("there")) << "theirs";
  const auto made = NewFiles::Create({{Path("new/one"), "1"}, {Path("there"), "ours"}});
  EXPECT_TRUE(absl::IsAlreadyExists(made.status())) << made.status();
  EXPECT_NE(std::string(made.status().message()).find(Path("there")), std::string::npos);
  EXPECT_EQ(Read("there"), "theirs");
  EXPECT_EQ(std::distance(fs::directory_iterator(folder_), {}), 1);
}

TEST_F(NewFilesTest, ALinkToNowhereIsNotFollowed) {
  fs::create_symlink(Path("elsewhere"), Path("link"));
  const auto made = NewFiles::Create({{Path("link"), "1"}});
  EXPECT_TRUE(absl::IsAlreadyExists(made.status())) << made.status();
  EXPECT_FALSE(fs::exists(Path("elsewhere")));
}

TEST_F(NewFilesTest, GoAgainUnlessTheyAreKept) {
  {
    const auto made = NewFiles::Create({{Path("a/b"), "1"}});
    ASSERT_TRUE(made.ok()) << made.status();
    EXPECT_EQ(Read("a/b"), "1");
  }
  EXPECT_TRUE(fs::is_empty(folder_));
}

TEST_F(NewFilesTest, AFileInTheWayOfAFolderIsNamed) {
  std::ofstream(Path("file")) << "x";
  const auto made = NewFiles::Create({{Path("file/below"), "1"}});
  EXPECT_FALSE(made.ok());
  EXPECT_NE(std::string(made.status().message()).find(Path("file") + ": "), std::string::npos);
}

TEST_F(NewFilesTest, MayBeSomebodyElses) {
  if (geteuid() != 0) GTEST_SKIP() << "only root can give files away";
  auto made = NewFiles::Create(
      {{.path = Path("key"), .contents = "secret", .owner = 65534, .group = 65533}});
  ASSERT_TRUE(made.ok()) << made.status();
  made->Keep();
  struct stat info {};
  ASSERT_EQ(stat(Path("key").c_str(), &info), 0);
  EXPECT_EQ(info.st_uid, 65534u);
  EXPECT_EQ(info.st_gid, 65533u);
  EXPECT_EQ(ModeOf("key"), 0600u);
}

}  // namespace
}  // namespace braid::new_files_test
