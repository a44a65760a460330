#include "slowpath/control_protocol.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

namespace braid::control_protocol_test {
namespace {

using nlohmann::json;
using std::string_literals::operator""s;

std::string Repeat(std::string_view text, size_t times) {
  std::string out;
  for (size_t i = 0; i < times; ++i) out += text;
  return out;
}

// A request whose params hold arrays down to `depth` levels, the request's own object being one.
std::string NestedRequest(size_t depth) {
  return R"({"v":1,"verb":"x","params":{"a":)" + Repeat("[", depth - 2) + Repeat("]", depth - 2) +
         "}}";
}

// A good request of exactly `size` bytes.
std::string RequestOfSize(size_t size) {
  const std::string head = R"({"v":1,"verb":"x","params":{"a":")";
  const std::string tail = R"("}})";
  return head + std::string(size - head.size() - tail.size(), 'a') + tail;
}

TEST(ControlRequestTest, GoodRequestsAreRead) {
  struct Case {
    std::string line;
    std::string id, verb, params;
  };
  const Case cases[] = {
      {R"({"v":1,"verb":"status"})", "", "status", "{}"},
      {R"({"v":1,"verb":"status","params":{}})", "", "status", "{}"},
      {R"({"v":1,"id":7,"verb":"status"})", "7", "status", "{}"},
      {R"({"v":1,"id":-9223372036854775808,"verb":"s"})", "-9223372036854775808", "s", "{}"},
      {R"({"v":1,"id":18446744073709551615,"verb":"s"})", "18446744073709551615", "s", "{}"},
      {R"({"v":1,"id":"","verb":"s"})", R"("")", "s", "{}"},
      {R"({"v":1,"id":"a\"\n\u00e9","verb":"s"})", "\"a\\\"\\n\xc3\xa9\"", "s", "{}"},
      {R"({"params":{"mode":"stripe"},"verb":"mode","v":1})", "", "mode", R"({"mode":"stripe"})"},
      {"  {\"v\":1,\t\"verb\":\"s\"} \r", "", "s", "{}"},
      {R"({"v":1,"verb":"s","params":{"b":"]]}}[[","c":"\\\"{["}})", "", "s",
       R"({"b":"]]}}[[","c":"\\\"{["})"},
      {R"({"v":1,"verb":")" + std::string(kMaxControlVerbBytes, 'v') + R"("})", "",
       std::string(kMaxControlVerbBytes, 'v'), "{}"},
  };
  for (const Case& c : cases) {
    ControlRequest request;
    const auto error = ParseControlRequest(c.line, request);
    ASSERT_FALSE(error.has_value()) << c.line << ": " << error->message;
    EXPECT_EQ(request.id, c.id) << c.line;
    EXPECT_EQ(request.verb, c.verb) << c.line;
    ASSERT_TRUE(request.params) << c.line;
    EXPECT_EQ(*request.params, json::parse(c.params)) << c.line;
  }
}

TEST(ControlRequestTest, BadRequestsAreRefusedWithTheirCode) {
  struct Case {
    std::string line;
    ControlCode code;
    std::string id = "";
  };
  const Case cases[] = {
      // Not JSON, or not all of it.
      {"", ControlCode::kBadJson},
      {" ", ControlCode::kBadJson},
      {"status", ControlCode::kBadJson},
      {R"({"v":1,"verb":"status")", ControlCode::kBadJson},
      {R"({"v":1,"verb":"sta)", ControlCode::kBadJson},
      {R"({"v":1,"verb":"s\)", ControlCode::kBadJson},
      {R"({"v":1,"verb":"status"}})", ControlCode::kBadJson},
      {R"({"v":1,"verb":"status"} {"v":1,"verb":"stop"})", ControlCode::kBadJson},
      {R"({"v":1,"verb":"status",})", ControlCode::kBadJson},
      {R"({v:1,verb:"status"})", ControlCode::kBadJson},
      {R"({"v":1,"verb":"status"/*x*/})", ControlCode::kBadJson},
      {R"({"v":01,"verb":"status"})", ControlCode::kBadJson},
      {R"({"v":1,"verb":"s","params":{"a":NaN}})", ControlCode::kBadJson},
      {R"({"v":1,"verb":"s","params":{"a":1e999}})", ControlCode::kBadJson},
      {"]]]]", ControlCode::kBadJson},
      // Bytes that no text holds.
      {"{\"v\":1,\"verb\":\"s\xff\"}", ControlCode::kBadJson},
      {"{\"v\":1,\"verb\":\"\xc0\xaf\"}", ControlCode::kBadJson},          // overlong
      {"{\"v\":1,\"verb\":\"\xed\xa0\x80\"}", ControlCode::kBadJson},      // a surrogate
      {"{\"v\":1,\"verb\":\"\xf4\x90\x80\x80\"}", ControlCode::kBadJson},  // past U+10FFFF
      {"{\"v\":1,\"verb\":\"\xe2\x82\"}", ControlCode::kBadJson},          // cut off
      {R"({"v":1,"verb":"\ud800"})", ControlCode::kBadJson},
      {"{\"v\":1,\"verb\":\"s\0\"}"s, ControlCode::kBadJson},
      {"{\"v\":1,\"verb\":\"status\"}\0{\"v\":1,\"verb\":\"stop\"}"s, ControlCode::kBadJson},
      {"\0"s, ControlCode::kBadJson},
      {"{\"v\":1,\"verb\":\"a\tb\"}", ControlCode::kBadJson},
      // JSON, but no request.
      {"null", ControlCode::kBadRequest},
      {"[]", ControlCode::kBadRequest},
      {"\"status\"", ControlCode::kBadRequest},
      {"1", ControlCode::kBadRequest},
      {R"([{"v":1,"verb":"status"}])", ControlCode::kBadRequest},
      {R"({"v":1})", ControlCode::kBadRequest},
      {R"({"v":1,"id":4})", ControlCode::kBadRequest, "4"},
      {R"({"v":1,"verb":null})", ControlCode::kBadRequest},
      {R"({"v":1,"verb":["status"]})", ControlCode::kBadRequest},
      {R"({"v":1,"verb":""})", ControlCode::kBadRequest},
      {R"({"v":1,"verb":")" + std::string(kMaxControlVerbBytes + 1, 'v') + R"("})",
       ControlCode::kBadRequest},
      {R"({"v":1,"verb":"s","parms":{}})", ControlCode::kBadRequest},
      {R"({"v":1,"verb":"s","":0,"id":"q"})", ControlCode::kBadRequest, R"("q")"},
      {R"({"v":1,"verb":"s","id":null})", ControlCode::kBadRequest},
      {R"({"v":1,"verb":"s","id":1.5})", ControlCode::kBadRequest},
      {R"({"v":1,"verb":"s","id":18446744073709551616})", ControlCode::kBadRequest},
      {R"({"v":1,"verb":"s","id":{"a":1}})", ControlCode::kBadRequest},
      // Another version; its other members are not judged.
      {R"({"verb":"status","id":1})", ControlCode::kBadVersion, "1"},
      {R"({"v":0,"verb":"status"})", ControlCode::kBadVersion},
      {R"({"v":2,"verb":"status","new":1,"id":1})", ControlCode::kBadVersion, "1"},
      {R"({"v":"1","verb":"status"})", ControlCode::kBadVersion},
      {R"({"v":1.0,"verb":"status"})", ControlCode::kBadVersion},
      {R"({"v":true,"verb":"status"})", ControlCode::kBadVersion},
      {R"({"v":4294967297,"verb":"status"})", ControlCode::kBadVersion},
      {"{}", ControlCode::kBadVersion},
      // Params.
      {R"({"v":1,"verb":"s","params":null})", ControlCode::kBadParams},
      {R"({"v":1,"verb":"s","params":[],"id":2})", ControlCode::kBadParams, "2"},
      {R"({"v":1,"verb":"s","params":"x"})", ControlCode::kBadParams},
  };
  for (const Case& c : cases) {
    ControlRequest request;
    const auto error = ParseControlRequest(c.line, request);
    ASSERT_TRUE(error.has_value()) << c.line;
    EXPECT_EQ(ControlCodeName(error->code), ControlCodeName(c.code)) << c.line;
    EXPECT_FALSE(error->message.empty()) << c.line;
    EXPECT_EQ(request.id, c.id) << c.line;
    const auto reply = RenderControlReply(request.id, *error);
    EXPECT_TRUE(json::parse(reply)["error"]["details"].is_object()) << reply;
  }
}

TEST(ControlRequestTest, DepthAndSizeHaveExactLimits) {
  struct Case {
    std::string line;
    std::optional<ControlCode> code;
  };
  const Case cases[] = {
      {NestedRequest(kMaxControlDepth), std::nullopt},
      {NestedRequest(kMaxControlDepth + 1), ControlCode::kTooDeep},
      {RequestOfSize(kMaxControlRequestBytes), std::nullopt},
      {RequestOfSize(kMaxControlRequestBytes + 1), ControlCode::kTooLarge},
      {std::string(100'000, '['), ControlCode::kTooDeep},
      {Repeat(R"({"a":)", 100'000), ControlCode::kTooDeep},
      {Repeat("[]", 100'000), ControlCode::kTooLarge},
      {std::string(10'000'000, ' '), ControlCode::kTooLarge},
      // Brackets in a string are no depth, neither are those that close nothing.
      {R"({"v":1,"verb":"s","params":{"a":")" + std::string(1000, '[') + R"("}})", std::nullopt},
      {std::string(1000, ']'), ControlCode::kBadJson},
  };
  for (const Case& c : cases) {
    ControlRequest request;
    const auto error = ParseControlRequest(c.line, request);
    ASSERT_EQ(error.has_value(), c.code.has_value()) << c.line.substr(0, 60);
    if (error) {
      EXPECT_EQ(ControlCodeName(error->code), ControlCodeName(*c.code)) << c.line.substr(0, 60);
    }
  }
}

TEST(ControlRequestTest, EveryTruncationOfAGoodRequestIsRefused) {
  const std::string line = R"({"v":1,"id":"é","verb":"path.add","params":{"a":[1,{"b":null}]}})";
  for (size_t size = 0; size < line.size(); ++size) {
    ControlRequest request;
    EXPECT_TRUE(ParseControlRequest(line.substr(0, size), request).has_value()) << size;
  }
}

TEST(ControlRequestTest, NothingOfAnEarlierRequestIsLeft) {
  ControlRequest request;
  ASSERT_FALSE(ParseControlRequest(R"({"v":1,"id":1,"verb":"a","params":{"x":1}})", request));
  ASSERT_FALSE(ParseControlRequest(R"({"v":1,"verb":"b"})", request));
  EXPECT_EQ(request.id, "");
  EXPECT_TRUE(request.params->empty());
}

TEST(ControlReplyTest, ResultsAndErrorsAreOneLine) {
  EXPECT_EQ(RenderControlReply("", ControlResult("{}")), "{\"v\":1,\"result\":{}}\n");
  EXPECT_EQ(RenderControlReply("7", ControlResult("{\n  \"a\": 1\n}")),
            "{\"v\":1,\"id\":7,\"result\":{   \"a\": 1 }}\n");
  EXPECT_EQ(RenderControlReply("\"q\"", ControlError{ControlCode::kConflict, "a \"b\"\n\xff", ""}),
            "{\"v\":1,\"id\":\"q\",\"error\":{\"code\":\"conflict\",\"message\":\"a "
            "\\\"b\\\"\\n\xef\xbf\xbd\",\"details\":{}}}\n");
  EXPECT_EQ(RenderControlReply("", UnknownVerb("fly")),
            "{\"v\":1,\"error\":{\"code\":\"unknown_verb\",\"message\":\"there is no verb "
            "\\\"fly\\\"\",\"details\":{\"verb\":\"fly\"}}}\n");
}

TEST(ControlReplyTest, CodesHaveDistinctNamesThatReadBack) {
  std::set<std::string_view> names;
  for (int i = 0; i <= static_cast<int>(ControlCode::kNotFound); ++i) {
    const auto code = static_cast<ControlCode>(i);
    names.insert(ControlCodeName(code));
    EXPECT_EQ(ParseControlCode(ControlCodeName(code)), code);
  }
  EXPECT_EQ(names, (std::set<std::string_view>{
                       "bad_json", "bad_request", "bad_version", "unknown_verb", "bad_params",
                       "too_large", "too_deep", "timeout", "too_many_clients", "unavailable",
                       "internal", "conflict", "not_found"}));
  EXPECT_EQ(ParseControlCode("nonsense"), std::nullopt);
}

TEST(ControlReplyTest, TheClientReadsWhatTheServerWrites) {
  const auto result = ParseControlReply(RenderControlReply("", ControlResult(R"({"b":1,"a":[]})")));
  ASSERT_TRUE(result.ok());
  EXPECT_EQ(*result, R"({"b":1,"a":[]})");  // the order of the daemon is kept

  const ControlError error{ControlCode::kNotFound, "no path lte", R"({"path":"lte"})"};
  const auto status = ParseControlReply(RenderControlReply("1", error)).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(status.message(), "no path lte");
  EXPECT_EQ(*status.GetPayload(kControlErrorPayload), RenderControlError(error));
}

TEST(ControlReplyTest, NonsenseIsNoReply) {
  for (const char* line :
       {"", "{}", "[]", "null", "{\"v\":1}", "{\"error\":1}", "\xff",
        "{\"error\":{\"code\":1,\"message\":\"\"}}", "{\"error\":{\"code\":\"internal\"}}"}) {
    EXPECT_EQ(ParseControlReply(line).status().code(), absl::StatusCode::kDataLoss) << line;
  }
  EXPECT_EQ(ParseControlReply(R"({"error":{"code":"newer","message":"m"}})").status().code(),
            absl::StatusCode::kInternal);
}

TEST(ControlReplyTest, StatusesOfTheProgramBecomeCodes) {
  struct Case {
    absl::Status status;
    ControlCode code;
  };
  for (const auto& [status, code] :
       {Case{absl::InvalidArgumentError("m"), ControlCode::kBadParams},
        Case{absl::NotFoundError("m"), ControlCode::kNotFound},
        Case{absl::AlreadyExistsError("m"), ControlCode::kConflict},
        Case{absl::FailedPreconditionError("m"), ControlCode::kConflict},
        Case{absl::UnavailableError("m"), ControlCode::kUnavailable},
        Case{absl::DeadlineExceededError("m"), ControlCode::kTimeout},
        Case{absl::DataLossError("m"), ControlCode::kInternal}}) {
    EXPECT_EQ(ToControlError(status).code, code) << status;
    EXPECT_EQ(ToControlError(status).message, "m");
  }
}

// Who asks for no more than a start has given no parameters that could be wrong.
TEST(ControlReplyTest, FailuresOfAConfigurationAreNoneOfTheRequest) {
  struct Case {
    absl::Status status;
    ControlCode code;
  };
  for (const auto& [status, code] :
       {Case{absl::InvalidArgumentError("m"), ControlCode::kBadConfig},
        Case{absl::NotFoundError("m"), ControlCode::kBadConfig},
        Case{absl::PermissionDeniedError("m"), ControlCode::kBadConfig},
        Case{absl::DataLossError("m"), ControlCode::kBadConfig},
        Case{absl::AlreadyExistsError("m"), ControlCode::kConflict},
        Case{absl::FailedPreconditionError("m"), ControlCode::kConflict},
        Case{absl::ResourceExhaustedError("m"), ControlCode::kUnavailable},
        Case{absl::InternalError("m"), ControlCode::kUnavailable}}) {
    EXPECT_EQ(ToConfigError(status).code, code) << status;
    EXPECT_EQ(ToConfigError(status).message, "m");
  }
}

TEST(ControlReplyTest, RequestsOfTheClientAreUnderstood) {
  std::string line = RenderControlRequest("path.add", "{\n\"name\": \"lte\"\n}");
  ASSERT_EQ(line.find('\n'), line.size() - 1);
  line.pop_back();
  ControlRequest request;
  ASSERT_FALSE(ParseControlRequest(line, request).has_value());
  EXPECT_EQ(request.verb, "path.add");
  EXPECT_EQ((*request.params)["name"], "lte");
}

TEST(ControlLinesTest, AnyCutGivesTheSameLines) {
  const std::string bytes = "one\n\ntwo\r\nthree \0\n rest"s;
  const std::vector<std::string> expected = {"one", "", "two\r", "three \0"s};
  for (size_t step = 1; step <= bytes.size(); ++step) {
    ControlLines lines;
    std::vector<std::string> found;
    for (size_t at = 0; at < bytes.size(); at += step) {
      lines.Append(std::string_view(bytes).substr(at, step));
      while (const auto line = lines.Next()) found.emplace_back(*line);
    }
    EXPECT_EQ(found, expected) << step;
    EXPECT_EQ(lines.pending(), " rest") << step;
  }
}

TEST(ControlLinesTest, LineOfTheMaximalLengthPassesAndOneByteMoreDoesNot) {
  ControlLines lines;
  lines.Append(std::string(kMaxControlRequestBytes, 'a'));
  EXPECT_FALSE(lines.Next().has_value());
  EXPECT_FALSE(lines.too_long());
  lines.Append("\n");
  EXPECT_EQ(lines.Next()->size(), kMaxControlRequestBytes);
  lines.Append(std::string(kMaxControlRequestBytes + 1, 'a'));
  EXPECT_FALSE(lines.Next().has_value());
  EXPECT_TRUE(lines.too_long());
}

}  // namespace
}  // namespace braid::control_protocol_test
