// The Unix socket of a running daemon: who may connect, how many, for how long; what is said there
// is in control_protocol.h.
#pragma once

#include <boost/asio/io_context.hpp>
#include <chrono>
#include <functional>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "slowpath/control_protocol.h"

namespace braid {

inline constexpr int kMaxControlClients = 64;
inline constexpr std::chrono::seconds kControlRequestTimeout{10};
inline constexpr std::chrono::seconds kControlReplyTimeout{10};
inline constexpr std::chrono::seconds kControlLingerTimeout{2};

// Answers one verb. `params` is an object and is borrowed for the call. Runs on the thread of the
// io_context and must not block. An exception becomes the error "internal".
using ControlHandler =
    std::function<ControlResult(std::string_view verb, const nlohmann::json& params)>;

struct ControlServerOptions {
  int max_clients = kMaxControlClients;
  // From the end of one answer, or the connection, to the end of the next request.
  std::chrono::milliseconds request_timeout = kControlRequestTimeout;
  // To take one whole answer; who does not read is dropped, so output is at most one answer each.
  std::chrono::milliseconds reply_timeout = kControlReplyTimeout;
  // The same once the server is closed: a daemon that ends waits for nobody for long.
  std::chrono::milliseconds linger_timeout = kControlLingerTimeout;
};

// Serves root and the user that it runs as, and nobody else. Lives on the thread of its io_context,
// which must outlive it.
class ControlServer {
 public:
  // Creates the socket with mode 0600, its directory too if that is missing, and beside it a file
  // PATH.lock, which stays. Errors:
  // AlreadyExists when a daemon answers there, FailedPrecondition when the path is something else,
  // InvalidArgument when it is too long. The socket of a daemon that has died is replaced.
  static absl::StatusOr<std::unique_ptr<ControlServer>> Listen(boost::asio::io_context& io,
                                                               std::string path,
                                                               ControlHandler handler,
                                                               ControlServerOptions options = {});
  ~ControlServer();
  ControlServer(const ControlServer&) = delete;
  ControlServer& operator=(const ControlServer&) = delete;

  // Removes the socket if it is still this server's own and ends the connections; an answer that
  // is being written is finished if the client takes it within the linger timeout. No handler is
  // called after this, and it may be called by one.
  void Close();

 private:
  class Core;
  class Connection;

  explicit ControlServer(std::shared_ptr<Core> core);

  const std::shared_ptr<Core> core_;
};

}  // namespace braid
