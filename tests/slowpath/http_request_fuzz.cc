// Feeds bytes to the reader of HTTP requests in two different cuts, and what it reads to the API.
// Whatever they are, both cuts give the same requests, within their bounds, and each request means
// a call or is refused.

#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "slowpath/api.h"
#include "slowpath/http_request.h"

namespace braid {
namespace {

constexpr HttpLimits kLimits = {.head_bytes = 512, .body_bytes = 256};

void Check(bool holds) {
  if (!holds) std::abort();
}

struct Read {
  std::vector<std::string> requests;  // each as one text
  int refused = 0;                    // with this status; nothing more is read then
};

std::string Written(const HttpRequest& request) {
  std::string text;
  for (const std::string* part :
       {&request.method, &request.target, &request.host, &request.origin, &request.authorization,
        &request.content_type, &request.last_event_id, &request.body}) {
    text += *part + "\n";
  }
  return text + (request.keep_alive ? "keep" : "close");
}

void CheckCall(const HttpRequest& request) {
  Check(request.body.size() <= kLimits.body_bytes);
  const auto found = FindApiOperation(request.method, request.target);
  if (const auto* refusal = std::get_if<ApiRefusal>(&found)) {
    Check(refusal->status >= 400);
    return;
  }
  const auto& operation = std::get<ApiOperation>(found);
  Check(operation.writes == (request.method != "GET" && request.method != "HEAD"));
  const auto params = ReadApiParams(operation, request.content_type, request.body);
  if (const auto* refusal = std::get_if<ApiRefusal>(&params)) {
    Check(refusal->status >= 400);
    return;
  }
  const auto& object = std::get<nlohmann::json>(params);
  Check(object.is_object());
  for (const auto& [name, value] : operation.from_path.items()) Check(object[name] == value);
  (void)ToJsonText(object);
}

Read Cut(std::string_view bytes, size_t step) {
  HttpRequestReader reader(kLimits);
  Read read;
  bool has_head = false;
  for (size_t at = 0; at < bytes.size(); at += step) {
    reader.Append(bytes.substr(at, step));
    while (true) {
      const auto progress = reader.Read();
      if (progress == HttpRequestReader::Progress::kMore) break;
      if (progress == HttpRequestReader::Progress::kRefused) {
        read.refused = reader.refusal().status;
        Check(read.refused >= 400);
        return read;
      }
      if (progress == HttpRequestReader::Progress::kHead) {
        Check(!has_head);
        has_head = true;
        continue;
      }
      Check(has_head && reader.is_whole());
      has_head = false;
      CheckCall(reader.request());
      read.requests.push_back(Written(reader.request()));
      reader.Next();
    }
  }
  return read;
}

}  // namespace
}  // namespace braid

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  const auto by_one = braid::Cut(bytes, 1);
  const auto by_more = braid::Cut(bytes, 1 + size / 3);
  // What stands around chunks is found too long where it comes bit by bit, else taken.
  if (by_one.refused == 431 || by_more.refused == 431) return 0;
  // Whether a mistake is found before the end of a head depends on the cut.
  braid::Check(by_one.requests == by_more.requests);
  return 0;
}
