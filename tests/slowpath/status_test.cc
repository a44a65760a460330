// What is told of the daemon: for how long, and as the OpenAPI document says.
#include "slowpath/status.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string>

#include "slowpath/api_schemas.h"
#include "slowpath/kept_text.h"
#include "slowpath/path_commands.h"

namespace braid::status_test {
namespace {

using Json = nlohmann::ordered_json;

// --- How long it is told again ---

class KeptTextTest : public ::testing::Test {
 protected:
  std::string Get(uint64_t last_event_id = 1) {
    return text_.Get(
        last_event_id,
        [this] {
          now_ns_ += cost_ns_;
          return std::to_string(++made_);
        },
        [this] { return now_ns_; });
  }

  KeptText text_;
  TimeNs now_ns_ = kSecondNs;
  DurationNs cost_ns_ = kMillisecondNs;
  int made_ = 0;
};

TEST_F(KeptTextTest, IsToldAgainForAWhileUnlessSomethingHasHappened) {
  EXPECT_EQ(Get(), "1");
  now_ns_ += KeptText::kLeastNs - 1;
  EXPECT_EQ(Get(), "1");
  now_ns_ += 1;
  EXPECT_EQ(Get(), "2");
  EXPECT_EQ(Get(2), "3");
  text_.Forget();
  EXPECT_EQ(Get(2), "4");
}

// However often it is asked for, and whatever happens meanwhile, a tenth of the time goes into it.
TEST_F(KeptTextTest, WhatTakesLongIsToldForTenTimesAsLong) {
  cost_ns_ = kSecondNs;
  const TimeNs until_ns = now_ns_ + 110 * kSecondNs;
  for (uint64_t event = 1; now_ns_ < until_ns; ++event) {
    Get(event);
    now_ns_ += 10 * kMillisecondNs;
  }
  EXPECT_LE(made_, 11);
  text_.Forget();
  const std::string made_anew = Get();
  EXPECT_EQ(made_anew, std::to_string(made_));
}

TEST_F(KeptTextTest, KeepsNoMemoryBeyondItsTime) {
  text_.Get(
      1, [] { return std::string(1 << 20, 'x'); }, [this] { return now_ns_; });
  text_.FreeIfOld(now_ns_);
  EXPECT_GE(text_.capacity(), size_t{1} << 20);
  text_.FreeIfOld(now_ns_ + KeptText::kLeastNs);
  EXPECT_LT(text_.capacity(), 100u);
  EXPECT_EQ(Get(), "1");
}

// --- What the document says of it ---

// Of the outermost members: those that are required, and the types that are told.
void ExpectFits(const Json& value, const char* schema_name) {
  const Json& schema = ApiSchemas().at(schema_name);
  for (const Json& name : schema.at("required")) {
    EXPECT_TRUE(value.contains(name.get<std::string>())) << schema_name << " lacks " << name;
  }
  for (const auto& [name, member] : value.items()) {
    if (!schema.at("properties").contains(name)) continue;
    const Json& said = schema.at("properties").at(name);
    if (!said.contains("type")) continue;
    const std::string type = said.at("type");
    const bool fits = type == "string"    ? member.is_string()
                      : type == "integer" ? member.is_number_integer()
                      : type == "number"  ? member.is_number()
                      : type == "array"   ? member.is_array()
                      : type == "boolean" ? member.is_boolean()
                                          : member.is_object();
    EXPECT_TRUE(fits || (member.is_null() && said.value("nullable", false)))
        << schema_name << ": " << name << " is " << member;
    if (!said.contains("enum")) continue;
    EXPECT_NE(std::find(said.at("enum").begin(), said.at("enum").end(), member),
              said.at("enum").end())
        << schema_name << ": " << name << " is " << member;
  }
}

TEST(StatusTest, OneOfAStoppedTunnelFitsItsSchema) {
  ExpectFits(DescribeStopped(Config(), ""), "Status");
  ExpectFits(DescribeStopped(Config(), "its device is gone"), "Status");
}

TEST(StatusTest, AQuotaFitsItsSchema) {
  PathConfig path;
  path.name = "lte";
  path.quota = {1'000'000'000, 1};
  PathQuotas quotas("/nowhere", Key{});
  quotas.Of(path.name, *path.quota).Count(1000);
  ExpectFits(DescribeQuota(path, quotas), "QuotaStatus");
}

}  // namespace
}  // namespace braid::status_test
