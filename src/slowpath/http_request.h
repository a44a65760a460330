// Takes the bytes of a connection apart into HTTP/1 requests (RFC 9112), within limits that hold
// whatever comes. Without sockets; the grammar is Boost.Beast's.
#pragma once

#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

#include "slowpath/api.h"

namespace braid {

struct HttpLimits {
  size_t head_bytes = 8 * 1024;  // request line and fields
  size_t body_bytes = kMaxControlRequestBytes;
};

// What of a request is looked at. A field that is not there is empty.
struct HttpRequest {
  std::string method;
  std::string target;  // begins with a slash, or is "*"
  std::string host;
  std::string origin;
  std::string authorization;
  std::string content_type;
  std::string last_event_id;
  bool expects_continue = false;  // waits for "100 Continue" before it sends its body
  bool keep_alive = true;         // wants to ask more on this connection
  std::string body;
};

// Holds one request within the limits and what has come behind it; give it no more bytes while it
// has a whole request, and so the pipeline is bounded by what is read at once.
class HttpRequestReader {
 public:
  enum class Progress : uint8_t {
    kMore,     // bytes are needed
    kHead,     // request() is there but for its body; told once
    kWhole,    // request() is there
    kRefused,  // refusal() says why; nothing more can be read
  };

  explicit HttpRequestReader(const HttpLimits& limits = {});

  void Append(std::string_view bytes) { buffer_.append(bytes); }
  Progress Read();
  // After a whole request: the next one.
  void Next();

  const HttpRequest& request() const { return request_; }
  const ApiRefusal& refusal() const { return refusal_; }
  // Nothing of the request is still to come.
  bool is_whole() const { return !is_refused_ && parser_->is_done(); }
  // Something of the request that Read() waits for has come.
  bool has_begun() const { return !buffer_.empty() || parser_->got_some(); }

 private:
  using Parser = boost::beast::http::request_parser<boost::beast::http::string_body>;

  Progress Refuse(int status, ControlCode code, std::string message);
  Progress RefuseFor(const boost::system::error_code& error);
  Progress TakeHead();
  bool TakeField(boost::beast::http::field name, std::string& to);

  const HttpLimits limits_;
  std::string buffer_;  // not parsed yet
  std::optional<Parser> parser_;
  bool has_head_ = false;
  bool is_refused_ = false;
  HttpRequest request_;
  ApiRefusal refusal_;
};

}  // namespace braid
