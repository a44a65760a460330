// The key agreement of the handshake against Project Wycheproof: right where there is a result, and
// refused where the result is all-zero.
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>

#include "slowpath/noise.h"

namespace braid::wycheproof_test {
namespace {

using Json = nlohmann::json;

std::filesystem::path VectorFolder() {
  const char* folder = std::getenv("BRAID_VECTORS");
  return std::filesystem::path(folder != nullptr ? folder : "../shared/vectors") / "wycheproof";
}

Key KeyFromHex(const std::string& text) {
  EXPECT_EQ(text.size(), 2 * kKeyBytes);
  Key key{};
  for (size_t i = 0; i < key.size() && 2 * i + 1 < text.size(); ++i) {
    key[i] = static_cast<uint8_t>(std::stoul(text.substr(2 * i, 2), nullptr, 16));
  }
  return key;
}

bool HasFlag(const Json& test, const std::string& flag) {
  for (const Json& found : test.at("flags")) {
    if (found == flag) return true;
  }
  return false;
}

struct Count {
  int tests = 0;
  int refused = 0;
};

void RunTest(const Json& test, Count& count) {
  SCOPED_TRACE("test " + test.at("tcId").dump() + ": " + std::string(test.at("comment")));
  const absl::StatusOr<Secret> shared =
      X25519(KeyFromHex(test.at("private")), KeyFromHex(test.at("public")));
  ++count.tests;
  if (HasFlag(test, "ZeroSharedSecret")) {
    EXPECT_FALSE(shared.ok());
    ++count.refused;
    return;
  }
  ASSERT_NE(test.at("result"), "invalid");
  ASSERT_TRUE(shared.ok()) << shared.status();
  EXPECT_EQ(static_cast<const Key&>(*shared), KeyFromHex(test.at("shared")));
}

TEST(Wycheproof, X25519) {
  if (!std::filesystem::is_directory(VectorFolder())) {
    GTEST_SKIP() << "no test vectors in " << VectorFolder()
                 << ": BRAID_VECTORS names the folder that holds wycheproof/";
  }
  Count count;
  for (const auto& entry : std::filesystem::directory_iterator(VectorFolder())) {
    if (entry.path().extension() != ".json") continue;
    std::ifstream file(entry.path());
    const Json document = Json::parse(file);
    if (document.value("algorithm", "") != "XDH") continue;
    for (const Json& group : document.at("testGroups")) {
      if (group.value("curve", "") != "curve25519") continue;
      for (const Json& test : group.at("tests")) RunTest(test, count);
    }
  }
  EXPECT_GT(count.tests, 0);
  EXPECT_GT(count.refused, 0);
  RecordProperty("tests", count.tests);
  RecordProperty("refused", count.refused);
}

}  // namespace
}  // namespace braid::wycheproof_test
