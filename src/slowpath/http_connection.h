// One connection of the HTTP API: its requests one after another, or one stream of events.
//
//   handshake ─► reading ─► turn ─► answering ─► reading …
//                   │          └──► streaming
//                   └─► refused ─► answering ─► lingering
#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <unordered_set>
#include <vector>

#include "base/address.h"
#include "slowpath/access.h"
#include "slowpath/api.h"
#include "slowpath/event_log.h"
#include "slowpath/http_request.h"
#include "slowpath/http_server.h"
#include "slowpath/http_stream.h"

namespace braid {

class HttpConnection;

// What all connections share.
struct HttpShared {
  HttpShared(boost::asio::io_context& io_context, HttpServerOptions with, HttpHandlers call,
             Access who_may);

  boost::asio::io_context& io;
  const HttpServerOptions options;
  const HttpHandlers handlers;
  Access access;
  const std::string openapi;
  std::unordered_set<HttpConnection*> connections;
  size_t answer_bytes = 0;  // that clients have not taken yet
  // Nothing is answered before: answers have had their part of the thread's time.
  std::chrono::steady_clock::time_point next_call{};
  // Of wrong tokens nothing is logged before: whoever tries many must not fill the log.
  std::chrono::steady_clock::time_point next_warning{};
  bool closed = false;
};

// IPv4-mapped addresses as IPv4.
IpAddress AddressOf(const boost::asio::ip::address& address);

class HttpConnection : public std::enable_shared_from_this<HttpConnection> {
 public:
  HttpConnection(std::shared_ptr<HttpShared> shared, std::unique_ptr<HttpStream> stream,
                 const IpAddress& client);
  ~HttpConnection();

  void Start();
  // Ends the connection now, or after the answer that is under way, for which it does not wait
  // long.
  void Finish();
  // Ends it at once.
  void End();

  // Whom it counts for in limits per address.
  const IpAddress& client() const { return client_; }
  bool is_streaming() const { return state_ == State::kStreaming; }
  // Whether it should rather make room for a new one than `other`.
  bool YieldsBefore(const HttpConnection& other) const;

 private:
  enum class State : uint8_t {
    kLingering,  // in the order in which they make room
    kReading,    // the handshake included
    kTurn,       // its request waits until handlers may be called
    kAnswering,
    kStreaming,  // makes no room
    kEnded,
  };
  using Fields = std::vector<std::pair<std::string, std::string>>;
  struct Answer {
    int status = 200;
    std::string content_type = "application/json";
    std::string body = {};
    Fields fields = {};
    bool ask_again = false;  // of the handler, in a moment; it is no answer yet
  };

  // A request, in the order of its stages.
  void Read();
  void OnRead(const boost::system::error_code& error, size_t bytes);
  void Proceed();
  void OnHead();
  std::optional<ApiRefusal> Judge();
  void WarnOfWrongToken();
  void SendContinue();
  void RefuseInTurn(ApiRefusal refusal);
  void AwaitTurn();
  void Serve();
  void ServeOperation();
  Answer ServeOptions() const;
  Answer ServeVerb(const ApiOperation& operation, const nlohmann::json& params);
  Answer Call(const std::function<Answer()>& handler);
  void Refuse(const ApiRefusal& refusal);
  void Send(Answer answer, bool ends);
  void OnWritten(const boost::system::error_code& error);
  void AwaitRequest();
  void Linger();
  void Drain(size_t drained);

  // A stream of events.
  void ServeEvents();
  std::optional<ApiRefusal> JudgeStream() const;
  void WatchForEnd();
  void OnNews();
  void Pump();
  void WriteStream();

  std::string RenderHead(const Answer& answer, bool ends) const;
  void Enter(State state);
  void SetTimer(std::chrono::steady_clock::duration delay);
  void OnTimer();
  void OnRequestTimeout();

  const std::shared_ptr<HttpShared> shared_;
  const std::unique_ptr<HttpStream> stream_;
  const IpAddress client_;
  IpAddress local_;
  boost::asio::steady_timer timer_;
  State state_ = State::kReading;
  std::chrono::steady_clock::time_point since_{};  // it is in this state
  std::array<char, 4096> chunk_;
  HttpRequestReader reader_;
  bool reads_ = false;   // a read is under way
  bool writes_ = false;  // a write is
  std::optional<ApiOperation> operation_;
  std::optional<ApiRefusal> refusal_;  // that waits for its turn
  std::string head_;
  std::string body_;
  size_t counted_bytes_ = 0;  // in answer_bytes
  bool ends_ = false;         // after this answer
  std::unique_ptr<EventLog::Follower> follower_;
  bool news_posted_ = false;
};

}  // namespace braid
