#include "slowpath/api.h"

#include <algorithm>
#include <optional>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "slowpath/api_schemas.h"

namespace braid {
namespace {

using Json = nlohmann::ordered_json;
using OperationKind = ApiOperation::Kind;

struct Operation {
  std::string_view method;
  std::string_view path;  // a part in braces becomes a member of the verb's parameters
  std::string_view verb;
  OperationKind kind;
  bool writes;
  std::string_view body;    // a schema's name; empty: none is taken
  std::string_view result;  // as well; empty: it is no JSON
  std::string_view summary;
  bool may_lack_body = false;  // though it takes one
};

constexpr Operation kOperations[] = {
    {"GET", "/v1/health", "health", OperationKind::kVerb, false, "", "Health",
     "Whether the tunnel works, component by component"},
    {"GET", "/v1/status", "status", OperationKind::kVerb, false, "", "Status",
     "What runs, and how well"},
    {"GET", "/v1/metrics", "metrics", OperationKind::kVerb, false, "", "Metrics",
     "The metrics as one text in JSON"},
    {"GET", "/v1/config", "config", OperationKind::kVerb, false, "", "Config",
     "The configuration that is in force, without secrets"},
    {"GET", "/v1/peers", "peers", OperationKind::kVerb, false, "", "Peers", "The peers"},
    {"GET", "/v1/peers/{name}", "peer", OperationKind::kVerb, false, "", "Peer", "One peer"},
    {"GET", "/v1/paths", "path_list", OperationKind::kVerb, false, "", "Paths", "A client's paths"},
    {"POST", "/v1/paths", "path_add", OperationKind::kVerb, true, "NewPath", "AddedPath",
     "Add a path, until the daemon ends"},
    {"PATCH", "/v1/paths/{name}", "path_set", OperationKind::kVerb, true, "PathChange", "Nothing",
     "Change a path's weight, rate or standby"},
    {"DELETE", "/v1/paths/{name}", "path_del", OperationKind::kVerb, true, "", "Nothing",
     "End a path"},
    {"GET", "/v1/mode", "mode", OperationKind::kVerb, false, "", "Mode", "The bonding mode"},
    {"PUT", "/v1/mode", "mode", OperationKind::kVerb, true, "WantedMode", "Mode", "Switch it"},
    {"POST", "/v1/start", "start", OperationKind::kVerb, true, "", "Nothing",
     "Bring the tunnel up"},
    {"POST", "/v1/stop", "stop", OperationKind::kVerb, true, "Scope", "Nothing",
     "Take the tunnel down, or end the daemon with it", true},
    {"POST", "/v1/reload", "reload", OperationKind::kVerb, true, "ReloadOptions", "Reload",
     "Read the configuration again and apply what has changed, or nothing", true},
    {"GET", "/v1/throttle", "throttle", OperationKind::kVerb, false, "", "Throttle",
     "The limits of rates, and what came of them"},
    {"PATCH", "/v1/throttle", "throttle", OperationKind::kVerb, true, "Limits", "Throttle",
     "Change or end limits of rates; what is not named stays"},
    {"GET", "/v1/events", "", OperationKind::kEvents, false, "", "",
     "What happens, as server-sent events, until the connection ends"},
    {"GET", "/v1/openapi.json", "", OperationKind::kOpenApi, false, "", "OpenApi", "This document"},
    {"GET", "/metrics", "", OperationKind::kMetrics, false, "", "",
     "The metrics in the text format of Prometheus"},
};

std::optional<int> HexDigit(char digit) {
  if (digit >= '0' && digit <= '9') return digit - '0';
  if (digit >= 'a' && digit <= 'f') return digit - 'a' + 10;
  if (digit >= 'A' && digit <= 'F') return digit - 'A' + 10;
  return std::nullopt;
}

// RFC 3986; nothing where a percent sign is followed by something else than two digits.
std::optional<std::string> Unescape(std::string_view text) {
  std::string plain;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      plain += text[i];
      continue;
    }
    if (i + 2 >= text.size()) return std::nullopt;
    const auto high = HexDigit(text[i + 1]);
    const auto low = HexDigit(text[i + 2]);
    if (!high || !low) return std::nullopt;
    plain += static_cast<char>(*high * 16 + *low);
    i += 2;
  }
  return plain;
}

bool IsParameter(std::string_view part) { return part.starts_with('{'); }

std::string_view ParameterName(std::string_view part) { return part.substr(1, part.size() - 2); }

std::vector<std::string> PartsOf(std::string_view path) {
  return absl::StrSplit(std::string(path), '/');
}

// The parameters of the path, where it is the operation's.
std::optional<nlohmann::json> Match(const std::vector<std::string>& parts,
                                    std::string_view pattern) {
  const std::vector<std::string> wanted = PartsOf(pattern);
  if (parts.size() != wanted.size()) return std::nullopt;
  nlohmann::json parameters = nlohmann::json::object();
  for (size_t i = 0; i < parts.size(); ++i) {
    if (!IsParameter(wanted[i])) {
      if (parts[i] != wanted[i]) return std::nullopt;
      continue;
    }
    const auto value = Unescape(parts[i]);
    if (!value || value->empty()) return std::nullopt;
    parameters[std::string(ParameterName(wanted[i]))] = *value;
  }
  return parameters;
}

ApiRefusal Refuse(int status, ControlCode code, std::string message) {
  return {{code, std::move(message)}, status, {}};
}

std::string_view PathOf(std::string_view target) { return target.substr(0, target.find('?')); }

// Parameters such as "; charset=utf-8" make no difference: JSON is UTF-8.
bool IsJson(std::string_view content_type) {
  const std::string type(content_type.substr(0, content_type.find(';')));
  return absl::AsciiStrToLower(absl::StripAsciiWhitespace(type)) == "application/json";
}

// Nothing, or {}: seen without reading what is long.
bool IsEmptyObject(std::string_view body) {
  constexpr size_t kMostBytes = 16;
  if (body.empty()) return true;
  if (body.size() > kMostBytes) return false;
  std::string text(body);
  std::erase_if(text, [](char c) { return absl::ascii_isspace(static_cast<unsigned char>(c)); });
  return text == "{}";
}

// --- The OpenAPI document ---

Json SchemaNamed(std::string_view name) {
  return {{"$ref", absl::StrCat("#/components/schemas/", std::string(name))}};
}

Json JsonContent(std::string_view schema) {
  return {{"application/json", {{"schema", SchemaNamed(schema)}}}};
}

Json TextContent(std::string_view type) {
  return {{std::string(type), {{"schema", {{"type", "string"}}}}}};
}

Json ContentOf(const Operation& operation) {
  if (operation.kind == OperationKind::kEvents) {
    Json content = TextContent("text/event-stream");
    // OpenAPI 3.0 has no words for what is in a stream.
    content["text/event-stream"]["x-data-of-each-event"] = SchemaNamed("Event");
    return content;
  }
  if (operation.kind == OperationKind::kMetrics) return TextContent("text/plain");
  return JsonContent(operation.result);
}

bool HasPathParameter(const Operation& operation) {
  return operation.path.find('{') != operation.path.npos;
}

// The statuses that a client has to reckon with, beside the "default" of all others.
std::vector<int> ErrorStatusesOf(const Operation& operation) {
  std::vector<int> statuses = {400, 401, 403, 408, 429, 431, 503};
  if (HasPathParameter(operation)) statuses.push_back(404);
  if (operation.writes) statuses.push_back(409);
  if (!operation.body.empty()) statuses.insert(statuses.end(), {413, 415});
  std::sort(statuses.begin(), statuses.end());
  return statuses;
}

Json DescribeResponses(const Operation& operation) {
  Json responses;
  responses["200"] = {{"description", "Done"}, {"content", ContentOf(operation)}};
  for (const int status : ErrorStatusesOf(operation)) {
    responses[std::to_string(status)] = {{"$ref", "#/components/responses/Error"}};
  }
  responses["default"] = {{"$ref", "#/components/responses/Error"}};
  return responses;
}

Json DescribeParameters(const Operation& operation) {
  Json parameters = Json::array();
  for (const std::string& part : PartsOf(operation.path)) {
    if (!IsParameter(part)) continue;
    parameters.push_back({{"name", std::string(ParameterName(part))},
                          {"in", "path"},
                          {"required", true},
                          {"schema", {{"type", "string"}}}});
  }
  if (operation.kind == OperationKind::kEvents) {
    parameters.push_back({{"name", "Last-Event-ID"},
                          {"in", "header"},
                          {"description", "The history after this event comes first"},
                          {"schema", {{"type", "integer"}}}});
  }
  return parameters;
}

std::string OperationId(const Operation& operation) {
  std::string id = absl::AsciiStrToLower(std::string(operation.method));
  for (const std::string& part : PartsOf(operation.path)) {
    if (part.empty() || part == "v1") continue;
    absl::StrAppend(&id, "_",
                    IsParameter(part) ? absl::StrCat("by_", std::string(ParameterName(part)))
                                      : part.substr(0, part.find('.')));
  }
  return operation.path == "/metrics" ? id + "_text" : id;
}

Json DescribeOperation(const Operation& operation) {
  Json json;
  json["operationId"] = OperationId(operation);
  json["summary"] = std::string(operation.summary);
  // Off the loopback reads need the token, too.
  json["security"] = Json::array();
  if (!operation.writes) json["security"].push_back(Json::object());
  json["security"].push_back({{"token", Json::array()}});
  if (Json parameters = DescribeParameters(operation); !parameters.empty()) {
    json["parameters"] = std::move(parameters);
  }
  if (!operation.body.empty()) {
    json["requestBody"] = {{"required", !operation.may_lack_body},
                           {"content", JsonContent(operation.body)}};
  }
  json["responses"] = DescribeResponses(operation);
  return json;
}

}  // namespace

std::variant<ApiOperation, ApiRefusal> FindApiOperation(std::string_view method,
                                                        std::string_view target) {
  if (target.size() > kMaxApiTargetBytes) {
    return Refuse(414, ControlCode::kTooLarge, "the target is too long");
  }
  const std::vector<std::string> parts = PartsOf(PathOf(target));
  // RFC 9110: HEAD is GET without its body.
  const std::string_view wanted = method == "HEAD" ? "GET" : method;
  for (const Operation& operation : kOperations) {
    if (operation.method != wanted) continue;
    auto parameters = Match(parts, operation.path);
    if (!parameters) continue;
    if (target.find('?') != target.npos) {
      return Refuse(400, ControlCode::kBadRequest, "this request takes no query (\"?…\")");
    }
    return ApiOperation{operation.kind, operation.verb, operation.writes, !operation.body.empty(),
                        *std::move(parameters)};
  }
  std::string allowed = AllowedMethods(target);
  if (allowed.empty()) {
    return Refuse(404, ControlCode::kNotFound,
                  "there is nothing here; /v1/openapi.json lists what is");
  }
  ApiRefusal refusal =
      Refuse(405, ControlCode::kMethodNotAllowed, absl::StrCat("this is asked with ", allowed));
  refusal.fields.emplace_back("Allow", std::move(allowed));
  return refusal;
}

std::string AllowedMethods(std::string_view target) {
  const std::vector<std::string> parts = PartsOf(PathOf(target));
  std::vector<std::string_view> methods;
  for (const Operation& operation : kOperations) {
    if (!Match(parts, operation.path)) continue;
    methods.push_back(operation.method);
    if (operation.method == "GET") methods.push_back("HEAD");
  }
  if (methods.empty()) return "";
  methods.push_back("OPTIONS");
  return absl::StrJoin(methods, ", ",
                       [](std::string* out, std::string_view method) { out->append(method); });
}

std::variant<nlohmann::json, ApiRefusal> ReadApiParams(const ApiOperation& operation,
                                                       std::string_view content_type,
                                                       std::string_view body) {
  nlohmann::json params = nlohmann::json::object();
  if (!operation.takes_body && !IsEmptyObject(body)) {
    return Refuse(400, ControlCode::kBadParams, "this request takes no parameters in its body");
  }
  if (operation.takes_body && !body.empty()) {
    if (!IsJson(content_type)) {
      return Refuse(415, ControlCode::kUnsupportedMediaType,
                    "the body must be JSON, and be called application/json in Content-Type");
    }
    if (auto error = ParseControlParams(body, params)) return RefusalOf(*std::move(error));
  }
  for (const auto& [name, value] : operation.from_path.items()) params[name] = value;
  return params;
}

int HttpStatusOf(ControlCode code) {
  switch (code) {
    case ControlCode::kBadJson:
    case ControlCode::kBadRequest:
    case ControlCode::kBadVersion:
    case ControlCode::kBadParams:
    case ControlCode::kTooDeep:
      return 400;
    case ControlCode::kUnauthorized:
      return 401;
    case ControlCode::kForbidden:
      return 403;
    case ControlCode::kNotFound:
      return 404;
    case ControlCode::kMethodNotAllowed:
      return 405;
    case ControlCode::kTimeout:
      return 408;
    case ControlCode::kConflict:
    case ControlCode::kBadConfig:
    case ControlCode::kNeedsRestart:
      return 409;
    case ControlCode::kTooLarge:
      return 413;
    case ControlCode::kUnsupportedMediaType:
      return 415;
    case ControlCode::kTooManyRequests:
      return 429;
    case ControlCode::kInternal:
      return 500;
    case ControlCode::kUnknownVerb:
      return 501;
    case ControlCode::kTooManyClients:
    case ControlCode::kUnavailable:
      return 503;
  }
  return 500;
}

ApiRefusal RefusalOf(ControlError error) {
  const int status = HttpStatusOf(error.code);
  return {std::move(error), status, {}};
}

Json OpenApiDocument(std::string_view version) {
  Json document;
  document["openapi"] = "3.0.3";
  document["info"] = {{"title", "braid"}, {"version", std::string(version)}};
  document["paths"] = Json::object();
  for (const Operation& operation : kOperations) {
    const std::string method = absl::AsciiStrToLower(std::string(operation.method));
    document["paths"][std::string(operation.path)][method] = DescribeOperation(operation);
  }
  Json& components = document["components"];
  components["schemas"] = ApiSchemas();
  components["responses"]["Error"] = {{"description", "Why it was not done"},
                                      {"content", JsonContent("Error")}};
  components["securitySchemes"]["token"] = {
      {"type", "http"},
      {"scheme", "bearer"},
      {"description", "Of writes always, of reads where the API listens off the loopback"}};
  return document;
}

}  // namespace braid
