// The HTTP API without its sockets: which request means which verb of the control protocol, and the
// OpenAPI document, which is made of the same table.
//
//   GET    /v1/status            verb status            no token on the loopback
//   DELETE /v1/paths/lte         verb path_del          {"name": "lte"}, with a token
//
// Errors are {"code", "message", "details"} with the codes of control_protocol.h.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "slowpath/control_protocol.h"

namespace braid {

inline constexpr size_t kMaxApiTargetBytes = 2048;

// What is asked for: of the request line alone.
struct ApiOperation {
  enum class Kind : uint8_t {
    kVerb,
    kMetrics,  // the text that Prometheus takes
    kEvents,   // a stream
    kOpenApi,
  };
  Kind kind = Kind::kVerb;
  std::string_view verb;  // of the control protocol
  bool writes = false;    // needs the token everywhere
  bool takes_body = false;
  nlohmann::json from_path = nlohmann::json::object();  // the verb's parameters in the path
};

struct ApiRefusal {
  ControlError error;
  int status = 400;
  std::vector<std::pair<std::string, std::string>> fields;  // of the answer's head
};

// 404, 405 with Allow, 414, or what it is. HEAD is GET.
std::variant<ApiOperation, ApiRefusal> FindApiOperation(std::string_view method,
                                                        std::string_view target);

// The parameters for the verb: the body's members and those of the path, which count where both
// have one. Nothing is built of a body beyond the limits of a control request.
std::variant<nlohmann::json, ApiRefusal> ReadApiParams(const ApiOperation& operation,
                                                       std::string_view content_type,
                                                       std::string_view body);

// The methods of a path, HEAD and OPTIONS included, as in Allow; empty where there is no such path.
std::string AllowedMethods(std::string_view target);

int HttpStatusOf(ControlCode code);
ApiRefusal RefusalOf(ControlError error);

// Of OpenAPI 3.0. `version` is the program's.
nlohmann::ordered_json OpenApiDocument(std::string_view version);

}  // namespace braid
