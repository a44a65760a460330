// The HTTP API of a running daemon: who may connect, how many, for how long. What can be asked is
// in api.h, who may ask in access.h, what is said on one connection in http_connection.h.
//
// However many clients come and however slow they are, the newest gets its turn: who has waited
// longest without asking a whole request makes room. Answering takes no more than a part of the
// slow path's time, and none of the workers'.
#pragma once

#include <boost/asio/io_context.hpp>
#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "slowpath/access.h"
#include "slowpath/config.h"
#include "slowpath/control_server.h"
#include "slowpath/event_log.h"
#include "slowpath/http_request.h"
#include "slowpath/tls_identity.h"

namespace braid {

// Run on the thread of the io_context and must not block. What `events` refers to must outlive the
// server.
struct HttpHandlers {
  ControlHandler verb;                   // an exception becomes the error "internal"
  std::function<std::string()> metrics;  // in the text format of Prometheus
  EventLog& events;
};

inline constexpr size_t kMaxHttpConnections = 128;
inline constexpr size_t kMaxHttpConnectionsPerAddress = 64;  // of IPv6, per /64
inline constexpr size_t kMaxHttpStreams = 32;                // of events
inline constexpr size_t kMaxHttpStreamsPerAddress = 16;
static_assert(kMaxHttpStreams < kMaxHttpConnections);
static_assert(kMaxHttpStreamsPerAddress < kMaxHttpConnectionsPerAddress);

struct HttpServerOptions {
  AccessRules access;
  std::optional<TlsFiles> tls;

  size_t max_connections = kMaxHttpConnections;
  size_t max_connections_per_address = kMaxHttpConnectionsPerAddress;
  size_t max_streams = kMaxHttpStreams;
  size_t max_streams_per_address = kMaxHttpStreamsPerAddress;
  HttpLimits request;
  // Of answers that clients have not taken yet; while there is more, nothing new is answered.
  size_t max_answer_bytes = 64 << 20;

  // From the connection, or the first byte, to the end of a request; TLS's handshake has as long.
  std::chrono::milliseconds request_timeout{10'000};
  std::chrono::milliseconds idle_timeout{60'000};    // between two requests
  std::chrono::milliseconds reply_timeout{30'000};   // to take one answer, or a part of a stream
  std::chrono::milliseconds linger_timeout{2'000};   // for the other end to close, after the last
  std::chrono::milliseconds alive_interval{15'000};  // of comments in a stream without events
};

HttpServerOptions HttpOptionsOf(const HttpConfig& config);

// Lives on the thread of its io_context, which must outlive it.
class HttpServer {
 public:
  // An address that this machine does not have yet is listened at all the same, and the log says
  // so. Errors: AlreadyExists when the port is taken, InvalidArgument when, off the loopback, TLS
  // or token are missing, those of ReadTokenFile() and CheckTlsFiles().
  static absl::StatusOr<std::unique_ptr<HttpServer>> Listen(boost::asio::io_context& io,
                                                            HttpServerOptions options,
                                                            HttpHandlers handlers);
  ~HttpServer();
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;

  // Ends the connections; an answer that is being written is finished if the client takes it within
  // the linger timeout. No handler is called after this, and it may be called by one.
  void Close();

  // Where it listens: with the port that the kernel chose where 0 was asked for.
  const Endpoint& endpoint() const;

 private:
  class Core;

  explicit HttpServer(std::shared_ptr<Core> core);

  const std::shared_ptr<Core> core_;
};

}  // namespace braid
