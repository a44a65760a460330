#include "slowpath/control_protocol.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"

namespace braid {
namespace {

using Json = nlohmann::ordered_json;
using SortedJson = nlohmann::json;

constexpr std::pair<ControlCode, std::string_view> kCodeNames[] = {
    {ControlCode::kBadJson, "bad_json"},
    {ControlCode::kBadRequest, "bad_request"},
    {ControlCode::kBadVersion, "bad_version"},
    {ControlCode::kUnknownVerb, "unknown_verb"},
    {ControlCode::kBadParams, "bad_params"},
    {ControlCode::kTooLarge, "too_large"},
    {ControlCode::kTooDeep, "too_deep"},
    {ControlCode::kTimeout, "timeout"},
    {ControlCode::kTooManyClients, "too_many_clients"},
    {ControlCode::kUnavailable, "unavailable"},
    {ControlCode::kInternal, "internal"},
    {ControlCode::kConflict, "conflict"},
    {ControlCode::kNotFound, "not_found"},
    {ControlCode::kBadConfig, "bad_config"},
    {ControlCode::kNeedsRestart, "needs_restart"},
    {ControlCode::kUnauthorized, "unauthorized"},
    {ControlCode::kForbidden, "forbidden"},
    {ControlCode::kMethodNotAllowed, "method_not_allowed"},
    {ControlCode::kUnsupportedMediaType, "unsupported_media_type"},
    {ControlCode::kTooManyRequests, "too_many_requests"},
};

constexpr std::array<std::string_view, 4> kRequestMembers = {"v", "id", "verb", "params"};

ControlError Error(ControlCode code, std::string message,
                   const SortedJson& details = SortedJson::object()) {
  return {code, std::move(message), ToJsonText(details)};
}

// Whether the brackets outside of strings go deeper than a request may. Up to the first mistake
// in the text this agrees with what a parser would build, and a parser stops there.
bool IsTooDeep(std::string_view text) {
  size_t depth = 0;
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') ++i;
      if (c == '"') in_string = false;
    } else if (c == '"') {
      in_string = true;
    } else if (c == '{' || c == '[') {
      if (++depth > kMaxControlDepth) return true;
    } else if ((c == '}' || c == ']') && depth > 0) {
      --depth;
    }
  }
  return false;
}

std::optional<ControlError> CheckBounds(std::string_view line) {
  // Depth first, since it says more about a line that is both.
  if (IsTooDeep(line.substr(0, kMaxControlRequestBytes))) {
    return Error(ControlCode::kTooDeep,
                 absl::StrCat("the request is nested deeper than ", kMaxControlDepth, " levels"),
                 {{"limit", kMaxControlDepth}});
  }
  if (line.size() > kMaxControlRequestBytes) {
    return Error(ControlCode::kTooLarge,
                 absl::StrCat("the request is longer than ", kMaxControlRequestBytes, " bytes"),
                 {{"limit", kMaxControlRequestBytes}});
  }
  return std::nullopt;
}

std::optional<ControlError> ParseWithinBounds(std::string_view text, SortedJson& root) {
  if (auto error = CheckBounds(text)) return error;
  // The parser takes a NUL for the end of its input and would not look at what follows.
  if (text.find('\0') != text.npos) {
    return Error(ControlCode::kBadJson, "the request holds a NUL byte");
  }
  root = SortedJson::parse(text, nullptr, /*allow_exceptions=*/false);
  if (root.is_discarded()) {
    return Error(ControlCode::kBadJson, "the request is not JSON in UTF-8");
  }
  return std::nullopt;
}

ControlError ParamsMustBeObject(const SortedJson& given) {
  return Error(ControlCode::kBadParams, "\"params\" must be an object",
               {{"given", given.type_name()}});
}

std::optional<ControlError> ReadId(const SortedJson& root, ControlRequest& request) {
  const auto id = root.find("id");
  if (id == root.end()) return std::nullopt;
  if (!id->is_string() && !id->is_number_integer()) {
    return Error(ControlCode::kBadRequest, "\"id\" must be a string or an integer of 64 bits");
  }
  request.id = ToJsonText(*id);
  return std::nullopt;
}

std::optional<ControlError> CheckVersion(const SortedJson& root) {
  const auto version = root.find("v");
  if (version != root.end() && version->is_number_integer() && *version == kControlVersion) {
    return std::nullopt;
  }
  return Error(ControlCode::kBadVersion, absl::StrCat("\"v\" must be ", kControlVersion),
               {{"supported", SortedJson::array({kControlVersion})}});
}

std::optional<ControlError> CheckMembers(const SortedJson& root) {
  for (const auto& [name, value] : root.items()) {
    if (std::find(kRequestMembers.begin(), kRequestMembers.end(), name) == kRequestMembers.end()) {
      return Error(
          ControlCode::kBadRequest,
          absl::StrCat("a request has no member \"", name.substr(0, kMaxControlVerbBytes), "\""),
          {{"members", kRequestMembers}});
    }
  }
  return std::nullopt;
}

std::optional<ControlError> ReadVerb(const SortedJson& root, ControlRequest& request) {
  const auto verb = root.find("verb");
  if (verb == root.end() || !verb->is_string()) {
    return Error(ControlCode::kBadRequest, "\"verb\" must be a string");
  }
  const auto& name = verb->get_ref<const std::string&>();
  if (name.empty() || name.size() > kMaxControlVerbBytes) {
    return Error(ControlCode::kBadRequest,
                 absl::StrCat("\"verb\" must have 1 to ", kMaxControlVerbBytes, " bytes"));
  }
  request.verb = name;
  return std::nullopt;
}

std::optional<ControlError> TakeParams(SortedJson& root, ControlRequest& request) {
  SortedJson params = SortedJson::object();
  if (const auto found = root.find("params"); found != root.end()) params = std::move(*found);
  if (!params.is_object()) return ParamsMustBeObject(params);
  request.params = std::make_shared<const SortedJson>(std::move(params));
  return std::nullopt;
}

// `text` in one line. Newlines stand between the tokens of JSON only, never inside one.
void AppendOneLine(std::string& to, std::string_view text) {
  const size_t at = to.size();
  to.append(text);
  std::replace(to.begin() + static_cast<std::ptrdiff_t>(at), to.end(), '\n', ' ');
}

absl::StatusCode ToStatusCode(ControlCode code) {
  switch (code) {
    case ControlCode::kBadJson:
    case ControlCode::kBadRequest:
    case ControlCode::kBadVersion:
    case ControlCode::kBadParams:
    case ControlCode::kTooLarge:
    case ControlCode::kTooDeep:
    case ControlCode::kMethodNotAllowed:
    case ControlCode::kUnsupportedMediaType:
      return absl::StatusCode::kInvalidArgument;
    case ControlCode::kUnknownVerb:
      return absl::StatusCode::kUnimplemented;
    case ControlCode::kTimeout:
      return absl::StatusCode::kDeadlineExceeded;
    case ControlCode::kTooManyClients:
    case ControlCode::kTooManyRequests:
      return absl::StatusCode::kResourceExhausted;
    case ControlCode::kUnauthorized:
      return absl::StatusCode::kUnauthenticated;
    case ControlCode::kForbidden:
      return absl::StatusCode::kPermissionDenied;
    case ControlCode::kUnavailable:
      return absl::StatusCode::kUnavailable;
    case ControlCode::kConflict:
    case ControlCode::kBadConfig:
    case ControlCode::kNeedsRestart:
      return absl::StatusCode::kFailedPrecondition;
    case ControlCode::kNotFound:
      return absl::StatusCode::kNotFound;
    case ControlCode::kInternal:
      break;
  }
  return absl::StatusCode::kInternal;
}

ControlCode ToControlCode(absl::StatusCode code) {
  switch (code) {
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kOutOfRange:
      return ControlCode::kBadParams;
    case absl::StatusCode::kNotFound:
      return ControlCode::kNotFound;
    case absl::StatusCode::kAlreadyExists:
    case absl::StatusCode::kFailedPrecondition:
    case absl::StatusCode::kAborted:
      return ControlCode::kConflict;
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kResourceExhausted:
    case absl::StatusCode::kUnimplemented:
      return ControlCode::kUnavailable;
    case absl::StatusCode::kDeadlineExceeded:
      return ControlCode::kTimeout;
    default:
      return ControlCode::kInternal;
  }
}

ControlCode ToConfigCode(absl::StatusCode code) {
  switch (code) {
    case absl::StatusCode::kNotFound:
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kOutOfRange:
    case absl::StatusCode::kPermissionDenied:
    case absl::StatusCode::kDataLoss:
      return ControlCode::kBadConfig;
    case absl::StatusCode::kAlreadyExists:
    case absl::StatusCode::kFailedPrecondition:
    case absl::StatusCode::kAborted:
      return ControlCode::kConflict;
    default:
      return ControlCode::kUnavailable;
  }
}

std::optional<ControlError> ReadError(const Json& error) {
  if (!error.is_object()) return std::nullopt;
  const auto code = error.find("code");
  const auto message = error.find("message");
  if (code == error.end() || !code->is_string()) return std::nullopt;
  if (message == error.end() || !message->is_string()) return std::nullopt;
  const auto known = ParseControlCode(code->get_ref<const std::string&>());
  const auto details = error.find("details");
  return ControlError{known.value_or(ControlCode::kInternal), message->get<std::string>(),
                      details == error.end() ? "{}" : ToJsonText(*details)};
}

}  // namespace

std::string ToJsonText(const SortedJson& value) {
  return value.dump(-1, ' ', false, SortedJson::error_handler_t::replace);
}

std::string ToJsonText(const Json& value) {
  return value.dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::string_view ControlCodeName(ControlCode code) {
  for (const auto& [known, name] : kCodeNames) {
    if (known == code) return name;
  }
  return "internal";
}

std::optional<ControlCode> ParseControlCode(std::string_view name) {
  for (const auto& [code, known] : kCodeNames) {
    if (known == name) return code;
  }
  return std::nullopt;
}

std::vector<std::string_view> ControlCodeNames() {
  std::vector<std::string_view> names;
  for (const auto& [code, name] : kCodeNames) names.push_back(name);
  return names;
}

ControlError UnknownVerb(std::string_view verb) {
  return Error(ControlCode::kUnknownVerb,
               absl::StrCat("there is no verb \"", std::string(verb), "\""), {{"verb", verb}});
}

ControlError ToControlError(const absl::Status& status) {
  return Error(ToControlCode(status.code()), std::string(status.message()));
}

ControlError ToConfigError(const absl::Status& status) {
  return Error(ToConfigCode(status.code()), std::string(status.message()));
}

absl::Status ToStatus(const ControlError& error) {
  absl::Status status(ToStatusCode(error.code), error.message);
  status.SetPayload(kControlErrorPayload, absl::Cord(RenderControlError(error)));
  return status;
}

std::optional<ControlError> ParseControlRequest(std::string_view line, ControlRequest& request) {
  request = {};
  SortedJson root;
  if (auto error = ParseWithinBounds(line, root)) return error;
  if (!root.is_object()) {
    return Error(ControlCode::kBadRequest, "the request must be an object",
                 {{"given", root.type_name()}});
  }
  if (auto error = ReadId(root, request)) return error;
  if (auto error = CheckVersion(root)) return error;
  if (auto error = CheckMembers(root)) return error;
  if (auto error = ReadVerb(root, request)) return error;
  return TakeParams(root, request);
}

std::optional<ControlError> ParseControlParams(std::string_view text, SortedJson& params) {
  if (auto error = ParseWithinBounds(text, params)) return error;
  if (!params.is_object()) return ParamsMustBeObject(params);
  return std::nullopt;
}

std::string RenderControlError(const ControlError& error) {
  std::string out = "{\"code\":\"";
  out += ControlCodeName(error.code);
  out += "\",\"message\":" + ToJsonText(SortedJson(error.message)) + ",\"details\":";
  AppendOneLine(out, error.details.empty() ? "{}" : error.details);
  return out += '}';
}

std::string RenderControlReply(std::string_view id, const ControlResult& result) {
  std::string out = absl::StrCat("{\"v\":", kControlVersion);
  if (!id.empty()) out.append(",\"id\":").append(id);
  if (const auto* error = std::get_if<ControlError>(&result)) {
    out += ",\"error\":" + RenderControlError(*error);
  } else {
    out += ",\"result\":";
    AppendOneLine(out, std::get<std::string>(result));
  }
  return out += "}\n";
}

std::string RenderControlRequest(std::string_view verb, std::string_view params) {
  std::string out =
      absl::StrCat("{\"v\":", kControlVersion,
                   ",\"verb\":", ToJsonText(SortedJson(std::string(verb))), ",\"params\":");
  AppendOneLine(out, params);
  return out += "}\n";
}

absl::StatusOr<std::string> ParseControlReply(std::string_view line) {
  const auto root = Json::parse(line, nullptr, /*allow_exceptions=*/false);
  if (root.is_object()) {
    if (const auto result = root.find("result"); result != root.end()) return ToJsonText(*result);
    if (const auto found = root.find("error"); found != root.end()) {
      if (const auto error = ReadError(*found)) return ToStatus(*error);
    }
  }
  return absl::DataLossError("the daemon's answer is not a reply of the control protocol");
}

void ControlLines::Append(std::string_view bytes) {
  buffer_.erase(0, start_);
  scanned_ -= start_;
  start_ = 0;
  buffer_.append(bytes);
}

std::optional<std::string_view> ControlLines::Next() {
  const size_t end = buffer_.find('\n', scanned_);
  if (end == buffer_.npos) {
    scanned_ = buffer_.size();
    return std::nullopt;
  }
  const auto line = std::string_view(buffer_).substr(start_, end - start_);
  start_ = scanned_ = end + 1;
  return line;
}

}  // namespace braid
