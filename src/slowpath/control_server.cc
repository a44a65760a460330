#include "slowpath/control_server.h"

#include <fcntl.h>
#include <spdlog/spdlog.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <boost/asio/buffer.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/write.hpp>
#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>
#include <optional>
#include <thread>
#include <unordered_set>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "io/unique_fd.h"
#include "slowpath/control_client.h"
#include "slowpath/small_file.h"

namespace braid {
namespace {

namespace asio = boost::asio;
using asio::local::stream_protocol;
using boost::system::error_code;
using std::chrono::milliseconds;

constexpr mode_t kSocketMode = 0600;
constexpr mode_t kDirectoryMode = 0755;
constexpr size_t kReadBytes = 4096;
constexpr milliseconds kAcceptRetryDelay{100};
constexpr milliseconds kLockRetryDelay{10};
constexpr int kLockTries = 200;

std::string DirectoryOf(const std::string& path) {
  const size_t slash = path.rfind('/');
  if (slash == path.npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

// Holds a lock that belongs to the socket: two daemons that start at once must not each take the
// other's fresh socket for a stale one. Its file is this user's alone, since who can open it could
// keep every daemon out; and it stays, since who waits for it has it open.
absl::StatusOr<UniqueFd> LockSocketPath(const std::string& path) {
  const std::string directory = DirectoryOf(path);
  if (mkdir(directory.c_str(), kDirectoryMode) != 0 && errno != EEXIST) {
    return absl::ErrnoToStatus(errno, absl::StrCat("cannot create the directory ", directory));
  }
  for (int tries = 0; tries < kLockTries; ++tries) {
    auto lock = LockFile(path, LockWait::kNo);
    if (!absl::IsAlreadyExists(lock.status())) return lock;
    std::this_thread::sleep_for(kLockRetryDelay);
  }
  return absl::UnavailableError(absl::StrCat("somebody else holds the lock of ", path));
}

// OK when the path is free, or was and has been freed of what a daemon left that died.
absl::Status FreePath(const std::string& path, const sockaddr_un& address) {
  struct stat info;
  if (lstat(path.c_str(), &info) != 0) {
    if (errno == ENOENT) return absl::OkStatus();
    return absl::ErrnoToStatus(errno, absl::StrCat("cannot look at ", path));
  }
  if (!S_ISSOCK(info.st_mode)) {
    return absl::FailedPreconditionError(
        absl::StrCat(path, " exists and is not a socket; name another control socket"));
  }
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return absl::ErrnoToStatus(errno, "cannot open a Unix socket");
  const absl::Cleanup close_socket = [fd] { close(fd); };
  if (connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0 ||
      errno == EAGAIN) {
    return absl::AlreadyExistsError(absl::StrCat("another daemon answers at ", path,
                                                 "; stop it with 'braid stop --socket ", path,
                                                 "', or name another control socket"));
  }
  if (errno != ECONNREFUSED) {
    return absl::ErrnoToStatus(errno, absl::StrCat("cannot tell who owns the socket ", path));
  }
  if (unlink(path.c_str()) != 0 && errno != ENOENT) {
    return absl::ErrnoToStatus(errno, absl::StrCat("cannot remove the stale socket ", path));
  }
  spdlog::info("control: replaced the stale socket {}", path);
  return absl::OkStatus();
}

struct BoundSocket {
  int fd = -1;
  dev_t device = 0;
  ino_t inode = 0;
};

// Linux gives the file the mode of the socket when it is bound, so that there is no moment in
// which others may connect and no need to touch the umask of the whole process.
absl::Status BindPrivately(int fd, const std::string& path, const sockaddr_un& address) {
  if (fchmod(fd, kSocketMode) != 0) return absl::ErrnoToStatus(errno, "fchmod of a Unix socket");
  if (bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
    return absl::ErrnoToStatus(errno, absl::StrCat("cannot create the socket ", path));
  }
  return absl::OkStatus();
}

absl::Status StartListening(BoundSocket& bound, const std::string& path, int backlog) {
  struct stat info;
  if (lstat(path.c_str(), &info) != 0) {
    return absl::ErrnoToStatus(errno, absl::StrCat("cannot look at ", path));
  }
  if ((info.st_mode & 0777 & ~kSocketMode) != 0) {
    return absl::InternalError(absl::StrCat("the socket ", path, " is open to others"));
  }
  if (listen(bound.fd, backlog) != 0) {
    return absl::ErrnoToStatus(errno, absl::StrCat("cannot listen at ", path));
  }
  bound.device = info.st_dev;
  bound.inode = info.st_ino;
  return absl::OkStatus();
}

absl::StatusOr<BoundSocket> CreateSocket(const std::string& path, int backlog) {
  sockaddr_un address;
  if (auto status = FillControlAddress(path, address); !status.ok()) return status;
  const auto lock = LockSocketPath(path);
  if (!lock.ok()) return lock.status();
  if (auto status = FreePath(path, address); !status.ok()) return status;

  BoundSocket bound{.fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)};
  if (bound.fd < 0) return absl::ErrnoToStatus(errno, "cannot open a Unix socket");
  absl::Cleanup close_socket = [&bound] { close(bound.fd); };
  if (auto status = BindPrivately(bound.fd, path, address); !status.ok()) return status;
  absl::Cleanup remove = [&path] { unlink(path.c_str()); };
  if (auto status = StartListening(bound, path, backlog); !status.ok()) return status;
  std::move(remove).Cancel();
  std::move(close_socket).Cancel();
  return bound;
}

// The file's mode keeps others out already, unless somebody has changed it.
bool IsTrusted(stream_protocol::socket& socket) {
  ucred peer{};
  socklen_t length = sizeof(peer);
  if (getsockopt(socket.native_handle(), SOL_SOCKET, SO_PEERCRED, &peer, &length) != 0)
    return false;
  return peer.uid == 0 || peer.uid == geteuid();
}

// Tells a client why it is being dropped, if its buffer has room for that; nobody waits for it.
void SendLastWord(stream_protocol::socket& socket, const ControlError& error) {
  error_code ignored;
  socket.non_blocking(true, ignored);
  socket.write_some(asio::buffer(RenderControlReply("", error)), ignored);
}

}  // namespace

// The listening socket and what all connections share. Kept alive by them and by the pending
// accept, so that the server itself may go at any time.
class ControlServer::Core : public std::enable_shared_from_this<Core> {
 public:
  Core(asio::io_context& io, std::string path, const BoundSocket& bound, ControlHandler handler,
       const ControlServerOptions& options)
      : io_(io),
        path_(std::move(path)),
        bound_(bound),
        handler_(std::move(handler)),
        options_(options),
        acceptor_(io, stream_protocol(), bound.fd),
        retry_(io) {}

  void Accept();
  void Close();
  ControlResult Handle(const ControlRequest& request) const;
  void Forget(Connection* connection) { connections_.erase(connection); }
  bool closed() const { return closed_; }
  const ControlServerOptions& options() const { return options_; }

 private:
  void OnAccept(const error_code& error, stream_protocol::socket socket);
  void AcceptLater();
  void Welcome(stream_protocol::socket socket);
  void RemoveSocket();

  asio::io_context& io_;
  const std::string path_;
  const BoundSocket bound_;
  const ControlHandler handler_;
  const ControlServerOptions options_;
  stream_protocol::acceptor acceptor_;
  asio::steady_timer retry_;
  std::unordered_set<Connection*> connections_;
  bool closed_ = false;
};

// One client. It is either reading, or one request of it is being answered or waits until it can
// be; never both.
class ControlServer::Connection : public std::enable_shared_from_this<Connection> {
 public:
  Connection(std::shared_ptr<Core> core, asio::io_context& io, stream_protocol::socket socket)
      : core_(std::move(core)), socket_(std::move(socket)), deadline_(io) {}
  ~Connection() { core_->Forget(this); }

  void Start();
  // Ends the connection now, or after the answer that is under way.
  void Finish();

 private:
  enum class State : uint8_t {
    kReading,
    kWaiting,  // to ask again what the daemon could not do yet
    kAnswering,
    kEnded,
  };

  void Read();
  void OnRead(const error_code& error, size_t size);
  void Serve();
  void Answer(std::string_view line);
  milliseconds ReplyTimeout() const;
  void Write(std::string reply);
  void OnWritten(const error_code& error);
  void SetDeadline(milliseconds timeout);
  void OnDeadline();
  void Refuse(const ControlError& error);
  void End();

  const std::shared_ptr<Core> core_;
  stream_protocol::socket socket_;
  asio::steady_timer deadline_;
  State state_ = State::kReading;
  std::array<char, kReadBytes> chunk_;
  ControlLines lines_;
  std::string_view waiting_;  // of lines_, which nothing is added to meanwhile
  std::string reply_;
};

void ControlServer::Core::Accept() {
  acceptor_.async_accept(
      [core = shared_from_this()](const error_code& error, stream_protocol::socket socket) {
        core->OnAccept(error, std::move(socket));
      });
}

void ControlServer::Core::OnAccept(const error_code& error, stream_protocol::socket socket) {
  if (closed_) return;
  if (!error) {
    Welcome(std::move(socket));
  } else if (error != asio::error::connection_aborted) {
    spdlog::warn("control: cannot accept a client: {}", error.message());
    return AcceptLater();
  }
  Accept();
}

// Out of descriptors or memory: an immediate retry would only spin.
void ControlServer::Core::AcceptLater() {
  retry_.expires_after(kAcceptRetryDelay);
  retry_.async_wait([core = shared_from_this()](const error_code&) {
    if (!core->closed_) core->Accept();
  });
}

void ControlServer::Core::Welcome(stream_protocol::socket socket) {
  fcntl(socket.native_handle(), F_SETFD, FD_CLOEXEC);
  if (!IsTrusted(socket)) {
    return SendLastWord(socket, {ControlCode::kForbidden,
                                 "only root and the user of the daemon may speak to it here"});
  }
  if (connections_.size() >= static_cast<size_t>(options_.max_clients)) {
    return SendLastWord(socket, {ControlCode::kTooManyClients,
                                 absl::StrCat("the daemon serves ", options_.max_clients,
                                              " clients already; try again")});
  }
  const auto connection = std::make_shared<Connection>(shared_from_this(), io_, std::move(socket));
  connections_.insert(connection.get());
  connection->Start();
}

ControlResult ControlServer::Core::Handle(const ControlRequest& request) const {
  try {
    return handler_(request.verb, *request.params);
  } catch (const std::exception& error) {
    spdlog::error("control: the verb {} failed: {}", request.verb, error.what());
    return ControlError{ControlCode::kInternal, "the daemon failed to answer; its log says why"};
  }
}

void ControlServer::Core::Close() {
  if (std::exchange(closed_, true)) return;
  // Removed while it still listens: until then nobody else takes the path for stale.
  RemoveSocket();
  error_code ignored;
  acceptor_.close(ignored);
  retry_.cancel();
  for (Connection* connection : std::exchange(connections_, {})) connection->Finish();
}

void ControlServer::Core::RemoveSocket() {
  struct stat info;
  if (lstat(path_.c_str(), &info) != 0) return;
  if (info.st_dev != bound_.device || info.st_ino != bound_.inode) return;
  if (unlink(path_.c_str()) != 0) {
    spdlog::warn("control: cannot remove {}: {}", path_, std::strerror(errno));
  }
}

void ControlServer::Connection::Start() {
  SetDeadline(core_->options().request_timeout);
  Read();
}

void ControlServer::Connection::Finish() {
  if (state_ != State::kAnswering) return End();
  SetDeadline(ReplyTimeout());
}

milliseconds ControlServer::Connection::ReplyTimeout() const {
  return core_->closed() ? core_->options().linger_timeout : core_->options().reply_timeout;
}

void ControlServer::Connection::Read() {
  state_ = State::kReading;
  socket_.async_read_some(asio::buffer(chunk_),
                          [self = shared_from_this()](const error_code& error, size_t size) {
                            self->OnRead(error, size);
                          });
}

void ControlServer::Connection::OnRead(const error_code& error, size_t size) {
  if (state_ == State::kEnded) return;
  if (error == asio::error::eof && !lines_.pending().empty()) {
    return Refuse({ControlCode::kBadJson, "the request ends without a newline"});
  }
  if (error) return End();
  lines_.Append({chunk_.data(), size});
  Serve();
}

// The next request that has come, or more bytes.
void ControlServer::Connection::Serve() {
  if (core_->closed()) return End();
  if (const auto line = lines_.Next()) return Answer(*line);
  if (lines_.too_long()) return Answer(lines_.pending());
  Read();
}

void ControlServer::Connection::Answer(std::string_view line) {
  state_ = State::kAnswering;
  ControlRequest request;
  if (const auto error = ParseControlRequest(line, request)) {
    if (line.size() > kMaxControlRequestBytes) return Refuse(*error);
    return Write(RenderControlReply(request.id, *error));
  }
  const ControlResult result = core_->Handle(request);
  const auto* error = std::get_if<ControlError>(&result);
  if (error == nullptr || !error->ask_again) return Write(RenderControlReply(request.id, result));
  state_ = State::kWaiting;
  waiting_ = line;
  SetDeadline(kControlAskAgainAfter);
}

void ControlServer::Connection::Write(std::string reply) {
  reply_ = std::move(reply);
  SetDeadline(ReplyTimeout());
  asio::async_write(
      socket_, asio::buffer(reply_),
      [self = shared_from_this()](const error_code& error, size_t) { self->OnWritten(error); });
}

void ControlServer::Connection::OnWritten(const error_code& error) {
  if (state_ == State::kEnded) return;
  if (error) return End();
  reply_ = {};
  SetDeadline(core_->options().request_timeout);
  Serve();
}

void ControlServer::Connection::SetDeadline(milliseconds timeout) {
  deadline_.expires_after(timeout);
  deadline_.async_wait([self = shared_from_this()](const error_code& error) {
    // One that had fired already when a later deadline was set comes here without an error.
    if (!error && self->deadline_.expiry() <= std::chrono::steady_clock::now()) self->OnDeadline();
  });
}

void ControlServer::Connection::OnDeadline() {
  if (state_ == State::kReading) {
    return Refuse({ControlCode::kTimeout, "no whole request came in time"});
  }
  if (state_ == State::kWaiting) return Answer(waiting_);
  if (state_ == State::kAnswering) {
    spdlog::warn("control: dropped a client that does not read its answer");
    End();
  }
}

void ControlServer::Connection::Refuse(const ControlError& error) {
  SendLastWord(socket_, error);
  End();
}

void ControlServer::Connection::End() {
  state_ = State::kEnded;
  core_->Forget(this);
  deadline_.cancel();
  error_code ignored;
  socket_.close(ignored);
}

absl::StatusOr<std::unique_ptr<ControlServer>> ControlServer::Listen(asio::io_context& io,
                                                                     std::string path,
                                                                     ControlHandler handler,
                                                                     ControlServerOptions options) {
  const auto bound = CreateSocket(path, options.max_clients);
  if (!bound.ok()) return bound.status();
  auto core = std::make_shared<Core>(io, std::move(path), *bound, std::move(handler), options);
  core->Accept();
  return std::unique_ptr<ControlServer>(new ControlServer(std::move(core)));
}

ControlServer::ControlServer(std::shared_ptr<Core> core) : core_(std::move(core)) {}

ControlServer::~ControlServer() { Close(); }

void ControlServer::Close() { core_->Close(); }

}  // namespace braid
