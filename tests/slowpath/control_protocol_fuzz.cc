// Feeds bytes to the control protocol in two different cuts. Whatever they are, both give the same
// lines, every line gets one answer of one line, and what was accepted is within its bounds.

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "slowpath/control_protocol.h"

namespace braid {
namespace {

void Check(bool holds) {
  if (!holds) std::abort();
}

std::vector<std::string> Cut(std::string_view bytes, size_t step) {
  ControlLines lines;
  std::vector<std::string> found;
  for (size_t at = 0; at < bytes.size(); at += step) {
    lines.Append(bytes.substr(at, step));
    while (const auto line = lines.Next()) found.emplace_back(*line);
  }
  found.emplace_back(lines.pending());
  return found;
}

size_t Depth(const nlohmann::json& value) {
  size_t deepest = 0;
  if (!value.is_structured()) return 0;
  for (const auto& member : value) deepest = std::max(deepest, Depth(member));
  return deepest + 1;
}

void CheckAnswer(const ControlRequest& request, const ControlResult& result) {
  const std::string reply = RenderControlReply(request.id, result);
  Check(reply.find('\n') == reply.size() - 1);
  const auto parsed = nlohmann::json::parse(reply);
  Check(parsed.contains("id") == !request.id.empty());
  Check(parsed.contains("error") == std::holds_alternative<ControlError>(result));
}

void CheckLine(std::string_view line) {
  ControlRequest request;
  const auto error = ParseControlRequest(line, request);
  if (error) return CheckAnswer(request, *error);
  Check(line.size() <= kMaxControlRequestBytes);
  Check(!request.verb.empty() && request.verb.size() <= kMaxControlVerbBytes);
  Check(request.params->is_object() && Depth(*request.params) < kMaxControlDepth);
  CheckAnswer(request, ToJsonText(*request.params));

  std::string again = RenderControlRequest(request.verb, ToJsonText(*request.params));
  again.pop_back();
  ControlRequest same;
  // Numbers may need more digits than they were written with, and outgrow a line by that.
  if (again.size() > kMaxControlRequestBytes) return;
  Check(!ParseControlRequest(again, same));
  Check(same.verb == request.verb && *same.params == *request.params);
}

}  // namespace
}  // namespace braid

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  const auto lines = braid::Cut(bytes, 1);
  braid::Check(lines == braid::Cut(bytes, 1 + size / 3));
  for (const auto& line : lines) braid::CheckLine(line);
  (void)braid::ParseControlReply(bytes);
  return 0;
}
