// The control protocol without its socket: cutting bytes into lines, reading one request, typed
// errors, writing one reply.
//
//   {"v":1,"id":7,"verb":"status","params":{}}   one line, UTF-8, at most 64 KiB, 32 levels deep
//   {"v":1,"id":7,"result":{…}}                  or
//   {"v":1,"id":7,"error":{"code":"unknown_verb","message":"…","details":{…}}}
//
// "id" is a string or an integer and is echoed; "id" and "params" may be left out. Of a member that
// is given twice the last counts.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace braid {

inline constexpr int kControlVersion = 1;
inline constexpr size_t kMaxControlRequestBytes = 64 * 1024;  // of a line, without its newline
inline constexpr size_t kMaxControlDepth = 32;                // the request's own object is level 1
inline constexpr size_t kMaxControlVerbBytes = 64;

// The names are part of the contract: ControlCodeName(kBadJson) is "bad_json", and so on.
enum class ControlCode : uint8_t {
  kBadJson,
  kBadRequest,
  kBadVersion,
  kUnknownVerb,
  kBadParams,
  kTooLarge,
  kTooDeep,
  kTimeout,
  kTooManyClients,
  kUnavailable,
  kInternal,
  kConflict,
  kNotFound,
  kBadConfig,         // "details" has "mistakes" where the file has some
  kNeedsRestart,      // "details" has "changes"
  kUnauthorized,      // who asks has shown no token, or a wrong one
  kForbidden,         // who asks may not, whatever is shown
  kMethodNotAllowed,  // this and the next two: of HTTP
  kUnsupportedMediaType,
  kTooManyRequests,
};

std::string_view ControlCodeName(ControlCode code);
std::optional<ControlCode> ParseControlCode(std::string_view name);
std::vector<std::string_view> ControlCodeNames();  // in the order of the codes

struct ControlError {
  ControlCode code = ControlCode::kInternal;
  std::string message;
  std::string details = {};  // a JSON object as text; empty means {}
  // Not to be told yet: it may be otherwise in a moment, so the verb is called again then.
  bool ask_again = false;
};
inline constexpr std::chrono::milliseconds kControlAskAgainAfter{100};

ControlError UnknownVerb(std::string_view verb);
// How the errors of the rest of the program appear to a client, and back again.
ControlError ToControlError(const absl::Status& status);
// The same where a verb without such parameters has failed: what the configuration names is not
// there or not right, or things are not as it needs them.
ControlError ToConfigError(const absl::Status& status);
absl::Status ToStatus(const ControlError& error);

// The status that a client makes of an error reply carries the error object under this name.
inline constexpr char kControlErrorPayload[] = "braid/control-error";

struct ControlRequest {
  std::string id;  // as JSON text, ready to be echoed; empty when there was none
  std::string verb;
  std::shared_ptr<const nlohmann::json> params;  // an object; never null in a good request
};

// Reads one line without its newline. After an error `request.id` is set if it could be read.
// No tree is built of a line that is too long or too deep.
[[nodiscard]] std::optional<ControlError> ParseControlRequest(std::string_view line,
                                                              ControlRequest& request);

// Reads parameters that stand alone, an object within the same limits; they may have several lines.
[[nodiscard]] std::optional<ControlError> ParseControlParams(std::string_view text,
                                                             nlohmann::json& params);

// What a verb comes to: a JSON text, or an error.
using ControlResult = std::variant<std::string, ControlError>;

// One line of JSON. Bytes that are no UTF-8 are replaced: a strange name must not cost the reply.
std::string ToJsonText(const nlohmann::json& value);
std::string ToJsonText(const nlohmann::ordered_json& value);

// One line with its newline. `id` is JSON text as in ControlRequest.
std::string RenderControlReply(std::string_view id, const ControlResult& result);
// {"code":…,"message":…,"details":{…}}
std::string RenderControlError(const ControlError& error);

// The client's half. `params` is a JSON object as text.
std::string RenderControlRequest(std::string_view verb, std::string_view params);
// The result as JSON text with its members in the order of the daemon, or the daemon's error.
absl::StatusOr<std::string> ParseControlReply(std::string_view line);

// Cuts what a connection brings into lines. It holds at most one line of the maximal length and
// what came with its last bytes.
class ControlLines {
 public:
  void Append(std::string_view bytes);
  // The next whole line without its newline, valid until the next call of either function.
  std::optional<std::string_view> Next();
  // The line that has begun is longer than a request may be; its end is not waited for.
  bool too_long() const { return pending().size() > kMaxControlRequestBytes; }
  // What has come of the line that has no end yet.
  std::string_view pending() const { return std::string_view(buffer_).substr(start_); }

 private:
  std::string buffer_;
  size_t start_ = 0;    // of the first line not yet handed out
  size_t scanned_ = 0;  // no newline between start_ and here
};

}  // namespace braid
