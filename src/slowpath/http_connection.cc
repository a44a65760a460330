#include "slowpath/http_connection.h"

#include <spdlog/spdlog.h>

#include <boost/asio/post.hpp>
#include <boost/beast/http/status.hpp>
#include <charconv>
#include <exception>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"

namespace braid {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;
using std::chrono::steady_clock;

// After an answer there is none for so many times as long as it took.
constexpr int kRestAfterAnswer = 3;
constexpr size_t kMaxDrainedBytes = 1 << 20;
constexpr std::chrono::seconds kBetweenWarnings{10};
constexpr size_t kStreamPartBytes = 16 * 1024;
constexpr std::string_view kContinue = "HTTP/1.1 100 Continue\r\n\r\n";
// A client that lost its connection comes again after this long.
constexpr std::string_view kStreamBegin = "retry: 2000\n\n";
constexpr std::string_view kStreamMissed = "event: missed\ndata: {}\n\n";
constexpr std::string_view kStreamAlive = ": alive\n\n";
constexpr std::string_view kMetricsType = "text/plain; version=0.0.4; charset=utf-8";
// Of every answer: it is of the moment, is what it says it is, and is no page.
constexpr std::string_view kCommonFields =
    "Cache-Control: no-store\r\n"
    "X-Content-Type-Options: nosniff\r\n"
    "Content-Security-Policy: default-src 'none'; frame-ancestors 'none'\r\n";

std::string_view ReasonOf(int status) {
  const auto reason = boost::beast::http::obsolete_reason(
      boost::beast::http::int_to_status(static_cast<unsigned>(status)));
  return {reason.data(), reason.size()};
}

std::optional<uint64_t> ParseId(std::string_view text) {
  uint64_t id = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), id);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return id;
}

void AppendEvent(std::string& to, const LoggedEvent& event) {
  absl::StrAppend(&to, "id: ", event.id, "\nevent: ", event.type,
                  "\ndata: {\"time_ms\":", event.time_ms, ",\"data\":", event.data, "}\n\n");
}

}  // namespace

HttpShared::HttpShared(asio::io_context& io_context, HttpServerOptions with, HttpHandlers call,
                       Access who_may)
    : io(io_context),
      options(std::move(with)),
      handlers(std::move(call)),
      access(std::move(who_may)),
      openapi(ToJsonText(OpenApiDocument(BRAID_VERSION))) {}

IpAddress AddressOf(const asio::ip::address& address) {
  if (address.is_v4()) return IpAddress::V4(address.to_v4().to_bytes().data());
  const asio::ip::address_v6 v6 = address.to_v6();
  if (!v6.is_v4_mapped()) return IpAddress::V6(v6.to_bytes().data());
  return IpAddress::V4(v6.to_bytes().data() + 12);
}

HttpConnection::HttpConnection(std::shared_ptr<HttpShared> shared,
                               std::unique_ptr<HttpStream> stream, const IpAddress& client)
    : shared_(std::move(shared)),
      stream_(std::move(stream)),
      client_(client),
      timer_(shared_->io),
      reader_(shared_->options.request) {
  error_code error;
  const tcp::endpoint local = stream_->socket().local_endpoint(error);
  if (!error) local_ = AddressOf(local.address());
  shared_->connections.insert(this);
}

HttpConnection::~HttpConnection() { End(); }

void HttpConnection::Start() {
  Enter(State::kReading);
  SetTimer(shared_->options.request_timeout);
  stream_->Handshake([self = shared_from_this()](const error_code& error, size_t) {
    if (self->state_ == State::kEnded) return;
    if (error) return self->End();
    self->Proceed();
  });
}

void HttpConnection::Finish() {
  if (state_ != State::kAnswering) return End();
  SetTimer(shared_->options.linger_timeout);
}

void HttpConnection::End() {
  if (state_ == State::kEnded) return;
  state_ = State::kEnded;
  follower_.reset();
  shared_->answer_bytes -= std::exchange(counted_bytes_, 0);
  shared_->connections.erase(this);
  timer_.cancel();
  error_code ignored;
  stream_->socket().close(ignored);
}

bool HttpConnection::YieldsBefore(const HttpConnection& other) const {
  return std::tie(state_, since_) < std::tie(other.state_, other.since_);
}

// --- A request ---

void HttpConnection::Read() {
  reads_ = true;
  stream_->ReadSome(asio::buffer(chunk_),
                    [self = shared_from_this()](const error_code& error, size_t bytes) {
                      self->reads_ = false;
                      self->OnRead(error, bytes);
                    });
}

void HttpConnection::OnRead(const error_code& error, size_t bytes) {
  if (state_ != State::kReading) return;
  if (error) return End();
  // An idle connection that wakes has as long for its request as a new one.
  if (!reader_.has_begun()) SetTimer(shared_->options.request_timeout);
  reader_.Append({chunk_.data(), bytes});
  Proceed();
}

void HttpConnection::Proceed() {
  if (shared_->closed) return End();
  switch (reader_.Read()) {
    case HttpRequestReader::Progress::kMore:
      return Read();
    case HttpRequestReader::Progress::kHead:
      return OnHead();
    case HttpRequestReader::Progress::kWhole:
      return AwaitTurn();
    case HttpRequestReader::Progress::kRefused:
      return RefuseInTurn(reader_.refusal());
  }
}

// Who may not ask is told before the body is read.
void HttpConnection::OnHead() {
  if (auto refusal = Judge()) return RefuseInTurn(*std::move(refusal));
  if (reader_.request().expects_continue) return SendContinue();
  Proceed();
}

std::optional<ApiRefusal> HttpConnection::Judge() {
  operation_.reset();
  const HttpRequest& request = reader_.request();
  const AccessClaim claim{request.host, request.origin, request.authorization, local_};
  if (auto refusal = shared_->access.CheckSource(claim)) return refusal;
  // A browser asks so before it sends what a page of a configured origin wants, without the token.
  if (request.method == "OPTIONS") return std::nullopt;
  auto found = FindApiOperation(request.method, request.target);
  auto* operation = std::get_if<ApiOperation>(&found);
  const bool writes = operation != nullptr && operation->writes;
  if (auto refusal = shared_->access.CheckToken(claim, writes, steady_clock::now())) {
    if (!request.authorization.empty()) WarnOfWrongToken();
    return refusal;
  }
  if (operation == nullptr) return std::get<ApiRefusal>(std::move(found));
  operation_ = std::move(*operation);
  return std::nullopt;
}

void HttpConnection::WarnOfWrongToken() {
  const auto now = steady_clock::now();
  if (now < shared_->next_warning) return;
  shared_->next_warning = now + kBetweenWarnings;
  spdlog::warn("http: a client from {} has shown a wrong token", client_.ToString());
}

void HttpConnection::SendContinue() {
  writes_ = true;
  stream_->Write({asio::buffer(kContinue)},
                 [self = shared_from_this()](const error_code& error, size_t) {
                   self->writes_ = false;
                   if (self->state_ != State::kReading) return;
                   if (error) return self->End();
                   self->Proceed();
                 });
}

void HttpConnection::RefuseInTurn(ApiRefusal refusal) {
  refusal_ = std::move(refusal);
  AwaitTurn();
}

void HttpConnection::AwaitTurn() {
  const auto now = steady_clock::now();
  if (now >= shared_->next_call) return Serve();
  if (state_ != State::kTurn) Enter(State::kTurn);
  SetTimer(shared_->next_call - now);
}

// Whatever is answered, the thread rests for it.
void HttpConnection::Serve() {
  if (shared_->closed) return End();
  Enter(State::kAnswering);
  const auto begin = steady_clock::now();
  if (refusal_) {
    Refuse(*std::exchange(refusal_, std::nullopt));
  } else if (!operation_) {
    Send(ServeOptions(), !reader_.request().keep_alive);
  } else {
    ServeOperation();
  }
  const auto end = steady_clock::now();
  shared_->next_call = end + kRestAfterAnswer * (end - begin);
}

void HttpConnection::ServeOperation() {
  const HttpRequest& request = reader_.request();
  const bool ends = !request.keep_alive;
  if (shared_->answer_bytes > shared_->options.max_answer_bytes) {
    return Refuse(RefusalOf({ControlCode::kTooManyClients,
                             "other clients have not taken their answers yet; try again"}));
  }
  const auto params = ReadApiParams(*operation_, request.content_type, request.body);
  if (const auto* refusal = std::get_if<ApiRefusal>(&params)) return Refuse(*refusal);
  switch (operation_->kind) {
    case ApiOperation::Kind::kVerb: {
      Answer answer = ServeVerb(*operation_, std::get<nlohmann::json>(params));
      if (!answer.ask_again) return Send(std::move(answer), ends);
      Enter(State::kTurn);
      return SetTimer(kControlAskAgainAfter);
    }
    case ApiOperation::Kind::kMetrics:
      return Send(Call([this] {
                    return Answer{200, std::string(kMetricsType), shared_->handlers.metrics()};
                  }),
                  ends);
    case ApiOperation::Kind::kOpenApi:
      return Send({.body = shared_->openapi}, ends);
    case ApiOperation::Kind::kEvents:
      return ServeEvents();
  }
}

// The answer to a browser that asks whether it may ask; who may not was refused for its origin.
HttpConnection::Answer HttpConnection::ServeOptions() const {
  const std::string allowed = AllowedMethods(reader_.request().target);
  return {.status = 204,
          .content_type = "",
          .fields = {{"Allow", allowed.empty() ? "GET, HEAD, OPTIONS" : allowed},
                     {"Access-Control-Allow-Methods", "GET, HEAD, POST, PUT, PATCH, DELETE"},
                     {"Access-Control-Allow-Headers", "Authorization, Content-Type, Last-Event-ID"},
                     {"Access-Control-Max-Age", "600"}}};
}

HttpConnection::Answer HttpConnection::ServeVerb(const ApiOperation& operation,
                                                 const nlohmann::json& params) {
  return Call([&]() -> Answer {
    const ControlResult result = shared_->handlers.verb(operation.verb, params);
    const auto* error = std::get_if<ControlError>(&result);
    if (error == nullptr) return {.body = std::get<std::string>(result)};
    return {.status = HttpStatusOf(error->code),
            .body = RenderControlError(*error),
            .ask_again = error->ask_again};
  });
}

HttpConnection::Answer HttpConnection::Call(const std::function<Answer()>& handler) {
  try {
    return handler();
  } catch (const std::exception& error) {
    spdlog::error("http: {} {} failed: {}", reader_.request().method, reader_.request().target,
                  error.what());
    return {.status = 500,
            .body = RenderControlError(
                {ControlCode::kInternal, "the daemon failed to answer; its log says why"})};
  }
}

// Where the rest of the request has not come, nobody waits for it.
void HttpConnection::Refuse(const ApiRefusal& refusal) {
  Answer answer{.status = refusal.status,
                .body = RenderControlError(refusal.error),
                .fields = refusal.fields};
  if (refusal.status == 503 || refusal.status == 429)
    answer.fields.emplace_back("Retry-After", "1");
  Send(std::move(answer), !reader_.is_whole() || !reader_.request().keep_alive);
}

void HttpConnection::Send(Answer answer, bool ends) {
  Enter(State::kAnswering);
  ends_ = ends;
  head_ = RenderHead(answer, ends);
  body_ = reader_.request().method == "HEAD" ? "" : std::move(answer.body);
  counted_bytes_ = head_.size() + body_.size();
  shared_->answer_bytes += counted_bytes_;
  // One that is closing waits for nobody for long.
  const HttpServerOptions& options = shared_->options;
  SetTimer(shared_->closed ? options.linger_timeout : options.reply_timeout);
  writes_ = true;
  stream_->Write({asio::buffer(head_), asio::buffer(body_)},
                 [self = shared_from_this()](const error_code& error, size_t) {
                   self->writes_ = false;
                   self->OnWritten(error);
                 });
}

std::string HttpConnection::RenderHead(const Answer& answer, bool ends) const {
  std::string head =
      absl::StrCat("HTTP/1.1 ", answer.status, " ", std::string(ReasonOf(answer.status)), "\r\n",
                   std::string(kCommonFields));
  if (!answer.content_type.empty()) {
    absl::StrAppend(&head, "Content-Type: ", answer.content_type, "\r\n");
  }
  if (answer.status != 204 && !is_streaming()) {
    absl::StrAppend(&head, "Content-Length: ", answer.body.size(), "\r\n");
  }
  for (const auto& [name, value] : answer.fields) absl::StrAppend(&head, name, ": ", value, "\r\n");
  const std::string& origin = reader_.request().origin;
  if (shared_->access.IsConfiguredOrigin(origin)) {
    absl::StrAppend(&head, "Access-Control-Allow-Origin: ", origin, "\r\nVary: Origin\r\n");
  }
  if (ends) head += "Connection: close\r\n";
  return head += "\r\n";
}

void HttpConnection::OnWritten(const error_code& error) {
  if (state_ != State::kAnswering) return;
  if (error) return End();
  head_ = {};
  body_ = {};
  shared_->answer_bytes -= std::exchange(counted_bytes_, 0);
  if (ends_) return reads_ || shared_->closed ? End() : Linger();
  AwaitRequest();
}

void HttpConnection::AwaitRequest() {
  Enter(State::kReading);
  reader_.Next();
  SetTimer(reader_.has_begun() ? shared_->options.request_timeout : shared_->options.idle_timeout);
  Proceed();
}

// Closing while the client still sends would have its kernel forget an answer that it has not read.
void HttpConnection::Linger() {
  Enter(State::kLingering);
  SetTimer(shared_->options.linger_timeout);
  stream_->EndWriting([self = shared_from_this()](const error_code&, size_t) {
    if (self->state_ != State::kLingering) return;
    error_code ignored;
    self->stream_->socket().shutdown(tcp::socket::shutdown_send, ignored);
    self->Drain(0);
  });
}

void HttpConnection::Drain(size_t drained) {
  if (drained > kMaxDrainedBytes) return End();
  stream_->socket().async_read_some(
      asio::buffer(chunk_),
      [self = shared_from_this(), drained](const error_code& error, size_t bytes) {
        if (self->state_ != State::kLingering) return;
        if (error) return self->End();
        self->Drain(drained + bytes);
      });
}

// --- A stream of events ---

void HttpConnection::ServeEvents() {
  if (const auto refusal = JudgeStream()) return Refuse(*refusal);
  const HttpRequest& request = reader_.request();
  if (request.method == "HEAD") {
    return Send({.content_type = "text/event-stream"}, !request.keep_alive);
  }
  std::optional<uint64_t> after;
  if (!request.last_event_id.empty()) after = ParseId(request.last_event_id);
  follower_ = shared_->handlers.events.Follow(after, [this] {
    if (std::exchange(news_posted_, true)) return;
    asio::post(shared_->io, [self = shared_from_this()] { self->OnNews(); });
  });
  Enter(State::kStreaming);
  body_ = RenderHead({.content_type = "text/event-stream"}, /*ends=*/true);
  body_ += kStreamBegin;
  if (follower_->has_missed()) body_ += kStreamMissed;
  WatchForEnd();
  WriteStream();
}

std::optional<ApiRefusal> HttpConnection::JudgeStream() const {
  const std::string& id = reader_.request().last_event_id;
  if (!id.empty() && !ParseId(id)) {
    return RefusalOf({ControlCode::kBadRequest, "Last-Event-ID must be the id of an event"});
  }
  const size_t streams = shared_->handlers.events.followers();
  size_t of_client = 0;
  for (const HttpConnection* other : shared_->connections) {
    if (other->is_streaming() && other->client_ == client_) ++of_client;
  }
  const HttpServerOptions& options = shared_->options;
  if (of_client >= options.max_streams_per_address) {
    return RefusalOf({ControlCode::kTooManyRequests,
                      absl::StrCat("this address has ", of_client, " streams already")});
  }
  if (streams >= options.max_streams) {
    return RefusalOf({ControlCode::kTooManyClients,
                      absl::StrCat("the daemon serves ", streams, " streams already")});
  }
  return std::nullopt;
}

// Nothing more is to come from a client that is given a stream, but its end.
void HttpConnection::WatchForEnd() {
  reads_ = true;
  stream_->ReadSome(asio::buffer(chunk_), [self = shared_from_this()](const error_code&, size_t) {
    self->reads_ = false;
    self->End();
  });
}

void HttpConnection::OnNews() {
  news_posted_ = false;
  if (state_ == State::kStreaming) Pump();
}

void HttpConnection::Pump() {
  if (follower_->has_lost()) {
    spdlog::warn("http: dropped a follower of events that does not read them");
    return End();
  }
  if (writes_) return;
  body_.clear();
  while (body_.size() < kStreamPartBytes) {
    const LoggedEvent* event = follower_->Next();
    if (event == nullptr) break;
    AppendEvent(body_, *event);
  }
  if (!body_.empty()) return WriteStream();
  SetTimer(shared_->options.alive_interval);
}

void HttpConnection::WriteStream() {
  SetTimer(shared_->options.reply_timeout);
  writes_ = true;
  stream_->Write({asio::buffer(body_)},
                 [self = shared_from_this()](const error_code& error, size_t) {
                   self->writes_ = false;
                   if (self->state_ != State::kStreaming) return;
                   if (error) return self->End();
                   self->Pump();
                 });
}

// --- Time ---

void HttpConnection::Enter(State state) {
  state_ = state;
  since_ = steady_clock::now();
}

void HttpConnection::SetTimer(steady_clock::duration delay) {
  timer_.expires_after(delay);
  timer_.async_wait([self = shared_from_this()](const error_code& error) {
    // One that had fired already when a later time was set comes here without an error.
    if (!error && self->timer_.expiry() <= steady_clock::now()) self->OnTimer();
  });
}

void HttpConnection::OnTimer() {
  switch (state_) {
    case State::kReading:
      return OnRequestTimeout();
    case State::kTurn:
      return AwaitTurn();
    case State::kAnswering:
      spdlog::warn("http: dropped a client that does not read its answer");
      return End();
    case State::kStreaming:
      if (writes_) return End();
      body_ = kStreamAlive;
      return WriteStream();
    case State::kLingering:
      return End();
    case State::kEnded:
      return;
  }
}

void HttpConnection::OnRequestTimeout() {
  if (writes_ || !reader_.has_begun()) return End();
  Refuse(RefusalOf({ControlCode::kTimeout, "no whole request came in time"}));
}

}  // namespace braid
