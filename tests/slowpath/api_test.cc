#include "slowpath/api.h"

#include <gtest/gtest.h>

#include <fstream>
#include <iterator>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"

namespace braid::api_test {
namespace {

using Json = nlohmann::ordered_json;

const std::vector<std::string> kMethods = {"GET", "POST", "PUT", "PATCH", "DELETE"};

// A path of the document as somebody asks for it.
std::string Filled(const std::string& path) {
  return absl::StrReplaceAll(path, {{"{name}", "hub%2Fone%20two"}});
}

const ApiOperation& Found(const std::variant<ApiOperation, ApiRefusal>& found) {
  return std::get<ApiOperation>(found);
}
const ApiRefusal& Refused(const std::variant<ApiOperation, ApiRefusal>& found) {
  return std::get<ApiRefusal>(found);
}

ApiRefusal RefusedParams(std::string_view content_type, std::string_view body) {
  const auto operation = FindApiOperation("POST", "/v1/paths");
  const auto params = ReadApiParams(Found(operation), content_type, body);
  const auto* refusal = std::get_if<ApiRefusal>(&params);
  return refusal != nullptr ? *refusal : ApiRefusal{{}, 200, {}};
}

void CollectReferences(const Json& json, std::vector<std::string>& to) {
  if (!json.is_structured()) return;
  for (const auto& [name, value] : json.items()) {
    if (name == "$ref") to.push_back(value.get<std::string>());
    CollectReferences(value, to);
  }
}

TEST(ApiTest, WhatTheDocumentListsIsThereAndNothingElseIs) {
  const Json document = OpenApiDocument("1.2.3");
  EXPECT_EQ(document["paths"].size(), 16u);
  for (const auto& [path, item] : document["paths"].items()) {
    std::vector<std::string> allowed;
    for (const std::string& method : kMethods) {
      if (!item.contains(absl::AsciiStrToLower(method))) continue;
      allowed.push_back(method);
      const Json& described = item[absl::AsciiStrToLower(method)];
      const auto found = FindApiOperation(method, Filled(path));
      ASSERT_TRUE(std::holds_alternative<ApiOperation>(found)) << method << " " << path;
      EXPECT_EQ(Found(found).writes, method != "GET") << path;
      EXPECT_EQ(described["security"].size(), Found(found).writes ? 1u : 2u) << path;
      EXPECT_EQ(Found(found).takes_body, described.contains("requestBody")) << path;
    }
    for (const std::string& method : kMethods) {
      if (item.contains(absl::AsciiStrToLower(method))) continue;
      const auto refused = FindApiOperation(method, Filled(path));
      ASSERT_TRUE(std::holds_alternative<ApiRefusal>(refused)) << method << " " << path;
      EXPECT_EQ(Refused(refused).status, 405) << method << " " << path;
      EXPECT_EQ(Refused(refused).error.code, ControlCode::kMethodNotAllowed);
      for (const std::string& each : allowed) {
        EXPECT_NE(Refused(refused).fields.at(0).second.find(each), std::string::npos) << path;
      }
    }
  }
  for (const char* target : {"/", "", "/v1", "/v1/", "/v1/status/", "/v1/statu", "/v2/status",
                             "/v1/peers/", "/v1/peers/a/b", "//v1/status", "/v1/../v1/status",
                             "/V1/status", "/v1/peers/%2", "/v1/peers/%zz", "*"}) {
    const auto refused = FindApiOperation("GET", target);
    ASSERT_TRUE(std::holds_alternative<ApiRefusal>(refused)) << target;
    EXPECT_EQ(Refused(refused).status, 404) << target;
  }
}

TEST(ApiTest, DocumentIsWhole) {
  const Json document = OpenApiDocument("1.2.3");
  EXPECT_EQ(document["openapi"], "3.0.3");
  EXPECT_EQ(document["info"]["version"], "1.2.3");
  std::set<std::string> ids;
  for (const auto& [path, item] : document["paths"].items()) {
    for (const auto& [method, operation] : item.items()) {
      EXPECT_TRUE(ids.insert(operation["operationId"]).second) << operation["operationId"];
      EXPECT_FALSE(operation["summary"].get<std::string>().empty());
      const Json& responses = operation["responses"];
      EXPECT_EQ(responses["200"]["content"].size(), 1u) << path;
      EXPECT_TRUE(responses.contains("default"));
      EXPECT_EQ(responses.contains("404"), path.find('{') != path.npos) << path;
      std::vector<std::string> in_path;
      if (operation.contains("parameters")) {
        for (const Json& parameter : operation["parameters"]) {
          if (parameter["in"] == "path") {
            in_path.push_back("{" + parameter["name"].get<std::string>() + "}");
            EXPECT_EQ(parameter["required"], true);
          }
        }
      }
      std::vector<std::string> wanted;
      for (const auto part : absl::StrSplit(path, '/')) {
        if (!part.empty() && part.front() == '{') wanted.emplace_back(part);
      }
      EXPECT_EQ(in_path, wanted) << path;
    }
  }
  std::vector<std::string> references;
  CollectReferences(document, references);
  EXPECT_GT(references.size(), 50u);
  const std::set<std::string> used(references.begin(), references.end());
  for (const std::string& reference : used) {
    ASSERT_EQ(reference[0], '#') << reference;
    EXPECT_TRUE(document.contains(Json::json_pointer(reference.substr(1)))) << reference;
  }
  for (const auto& [name, schema] : document["components"]["schemas"].items()) {
    EXPECT_TRUE(used.contains("#/components/schemas/" + name)) << name;
  }
}

TEST(ApiTest, EveryErrorCodeIsInTheDocumentAndHasAStatus) {
  const Json document = OpenApiDocument("1");
  const Json& codes = document["components"]["schemas"]["Error"]["properties"]["code"]["enum"];
  EXPECT_EQ(codes.size(), ControlCodeNames().size());
  for (const Json& name : codes) {
    const auto code = ParseControlCode(name.get<std::string>());
    ASSERT_TRUE(code.has_value()) << name;
    EXPECT_GE(HttpStatusOf(*code), 400) << name;
    EXPECT_EQ(HttpStatusOf(*code) == 500, *code == ControlCode::kInternal) << name;
  }
}

TEST(ApiTest, DocumentationListsEveryOperationAndCode) {
  std::ifstream file("docs/control.md");
  const std::string text{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  ASSERT_FALSE(text.empty());
  const Json document = OpenApiDocument("1");
  for (const auto& [path, item] : document["paths"].items()) {
    EXPECT_NE(text.find("`" + path + "`"), text.npos) << path;
  }
  for (const std::string_view code : ControlCodeNames()) {
    const std::string row =
        absl::StrCat("\n| `", std::string(code), "` | ", HttpStatusOf(*ParseControlCode(code)));
    EXPECT_NE(text.find(row), text.npos) << row;
  }
}

TEST(ApiTest, PartsOfThePathAreUnescapedParameters) {
  const auto found = FindApiOperation("DELETE", "/v1/paths/l%2ft%C3%A9%20%25");
  EXPECT_EQ(Found(found).verb, "path_del");
  EXPECT_EQ(Found(found).from_path, nlohmann::json({{"name", "l/t\u00e9 %"}}));
}

TEST(ApiTest, PathCountsBeforeTheBody) {
  const auto found = FindApiOperation("PATCH", "/v1/paths/lte");
  const auto params = ReadApiParams(Found(found), "application/json",
                                    "{\n \"name\": \"fibre\",\n \"weight\": 2\n}\n");
  EXPECT_EQ(std::get<nlohmann::json>(params), nlohmann::json({{"name", "lte"}, {"weight", 2}}));
}

TEST(ApiTest, HeadIsGet) {
  EXPECT_EQ(Found(FindApiOperation("HEAD", "/v1/status")).verb, "status");
  EXPECT_EQ(Refused(FindApiOperation("HEAD", "/v1/stop")).status, 405);
}

TEST(ApiTest, QueriesAndLongTargetsAreRefused) {
  EXPECT_EQ(Refused(FindApiOperation("GET", "/v1/status?verbose=1")).status, 400);
  const std::string name(kMaxApiTargetBytes, 'x');
  EXPECT_EQ(Refused(FindApiOperation("GET", "/v1/peers/" + name)).status, 414);
}

TEST(ApiTest, BodiesThatAreNoParametersAreRefused) {
  const std::string json = "application/json";
  EXPECT_EQ(RefusedParams("", "{}").status, 415);
  EXPECT_EQ(RefusedParams("text/plain", "{}").status, 415);
  EXPECT_EQ(RefusedParams("application/json-seq", "{}").status, 415);
  EXPECT_EQ(RefusedParams("Application/JSON ; charset=utf-8", "{}").status, 200);
  EXPECT_EQ(RefusedParams(json, "").status, 200);
  EXPECT_EQ(RefusedParams(json, "{").error.code, ControlCode::kBadJson);
  EXPECT_EQ(RefusedParams(json, "[]").error.code, ControlCode::kBadParams);
  EXPECT_EQ(RefusedParams(json, "{},\"verb\":\"stop\"").error.code, ControlCode::kBadJson);
  EXPECT_EQ(RefusedParams(json, std::string("{}\0", 3)).error.code, ControlCode::kBadJson);
  EXPECT_EQ(RefusedParams(json, "{\"a\":\"\xff\"}").error.code, ControlCode::kBadJson);
  EXPECT_EQ(RefusedParams(json, std::string(100'000, '[')).error.code, ControlCode::kTooDeep);
  const std::string deep = absl::StrCat("{\"a\":", std::string(kMaxControlDepth, '['),
                                        std::string(kMaxControlDepth, ']'), "}");
  EXPECT_EQ(RefusedParams(json, deep).error.code, ControlCode::kTooDeep);
  EXPECT_EQ(RefusedParams(json, std::string(kMaxControlRequestBytes + 1, ' ')).status, 413);
}

TEST(ApiTest, ParametersWhereNoneAreTakenAreRefused) {
  const auto found = FindApiOperation("POST", "/v1/start");
  const auto with = [&](std::string_view body) {
    return ReadApiParams(Found(found), "application/json", body);
  };
  EXPECT_TRUE(std::holds_alternative<nlohmann::json>(with("")));
  EXPECT_TRUE(std::holds_alternative<nlohmann::json>(with("{ }")));
  EXPECT_EQ(std::get<ApiRefusal>(with("{\"now\":true}")).status, 400);
  // Such a body is not even read.
  EXPECT_EQ(std::get<ApiRefusal>(with("{")).error.code, ControlCode::kBadParams);
  EXPECT_EQ(std::get<ApiRefusal>(with(std::string(100'000, '['))).error.code,
            ControlCode::kBadParams);
}

}  // namespace
}  // namespace braid::api_test
