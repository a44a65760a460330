#include "slowpath/http_request.h"

#include <boost/asio/buffer.hpp>
#include <boost/beast/core/string.hpp>
#include <boost/beast/http/error.hpp>
#include <utility>

#include "absl/strings/str_cat.h"

namespace braid {
namespace {

namespace http = boost::beast::http;
using boost::system::error_code;

// "0\r\n\r\n" ends a body of chunks. Given less than that of the last chunk, Beast's parser (1.81)
// fails an assertion.
constexpr size_t kLeastChunksBytes = 5;
constexpr unsigned kHttp10 = 10;
constexpr unsigned kHttp11 = 11;

}  // namespace

HttpRequestReader::HttpRequestReader(const HttpLimits& limits) : limits_(limits) { Next(); }

void HttpRequestReader::Next() {
  parser_.emplace();
  parser_->header_limit(static_cast<std::uint32_t>(limits_.head_bytes));
  parser_->body_limit(limits_.body_bytes);
  has_head_ = false;
  request_ = {};
}

HttpRequestReader::Progress HttpRequestReader::Read() {
  if (is_refused_) return Progress::kRefused;
  while (!parser_->is_done()) {
    const bool in_chunks = has_head_ && parser_->chunked();
    if (buffer_.size() < (in_chunks ? kLeastChunksBytes : 1)) return Progress::kMore;
    error_code error;
    const size_t used = parser_->put(boost::asio::buffer(buffer_), error);
    buffer_.erase(0, used);
    if (error == http::error::need_more) {
      // The parser bounds the head by itself, but not what stands between chunks and behind them.
      if (buffer_.size() <= limits_.head_bytes) return Progress::kMore;
      return Refuse(431, ControlCode::kTooLarge,
                    "what stands around the body's chunks is too long");
    }
    if (error) return RefuseFor(error);
    if (!has_head_ && parser_->is_header_done()) {
      has_head_ = true;
      return TakeHead();
    }
  }
  request_.body = std::move(parser_->get().body());
  return Progress::kWhole;
}

HttpRequestReader::Progress HttpRequestReader::TakeHead() {
  const auto& head = parser_->get();
  if (head.version() != kHttp10 && head.version() != kHttp11) {
    return Refuse(505, ControlCode::kBadVersion, "this is served by HTTP/1.1");
  }
  request_.method = std::string(head.method_string());
  request_.target = std::string(head.target());
  if (!request_.target.starts_with('/') && request_.target != "*") {
    return Refuse(400, ControlCode::kBadRequest, "the target must begin with a slash");
  }
  request_.keep_alive = head.version() == kHttp11 && head.keep_alive();
  for (const auto& [name, to] : {std::pair{http::field::host, &request_.host},
                                 {http::field::origin, &request_.origin},
                                 {http::field::authorization, &request_.authorization},
                                 {http::field::content_type, &request_.content_type}}) {
    if (!TakeField(name, *to)) {
      return Refuse(400, ControlCode::kBadRequest,
                    absl::StrCat("the field ", std::string(http::to_string(name)),
                                 " is there more than once"));
    }
  }
  request_.last_event_id = std::string(head["Last-Event-ID"]);
  request_.expects_continue = head.version() == kHttp11 && !parser_->is_done() &&
                              boost::beast::iequals(head[http::field::expect], "100-continue");
  return Progress::kHead;
}

// False where the field is there more than once, and who looks at one may see the other.
bool HttpRequestReader::TakeField(http::field name, std::string& to) {
  const auto& head = parser_->get();
  if (head.count(name) > 1) return false;
  to = std::string(head[name]);
  return true;
}

HttpRequestReader::Progress HttpRequestReader::RefuseFor(const error_code& error) {
  if (error == http::error::body_limit) {
    return Refuse(413, ControlCode::kTooLarge,
                  absl::StrCat("the body is longer than ", limits_.body_bytes, " bytes"));
  }
  if (error == http::error::header_limit) {
    return Refuse(431, ControlCode::kTooLarge,
                  absl::StrCat("the head is longer than ", limits_.head_bytes, " bytes"));
  }
  if (error == http::error::bad_version) {
    return Refuse(505, ControlCode::kBadVersion, "this is served by HTTP/1.1");
  }
  return Refuse(400, ControlCode::kBadRequest,
                absl::StrCat("this is no HTTP request: ", error.message()));
}

HttpRequestReader::Progress HttpRequestReader::Refuse(int status, ControlCode code,
                                                      std::string message) {
  is_refused_ = true;
  buffer_ = {};
  refusal_ = {{code, std::move(message)}, status, {}};
  return Progress::kRefused;
}

}  // namespace braid
