#include "slowpath/measure_responder.h"

#include <net/if.h>
#include <spdlog/spdlog.h>
#include <sys/socket.h>

#include <array>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <string_view>
#include <unordered_set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "slowpath/measure_protocol.h"
#include "slowpath/measure_socket.h"

namespace braid {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;
using std::chrono::steady_clock;

constexpr int kMeasureBacklog = 32;
constexpr std::chrono::seconds kAcceptWindow{1};

bool IsLinkLocal(const IpAddress& address) {
  return address.is_v6() && address.bytes[0] == 0xfe && (address.bytes[1] & 0xc0) == 0x80;
}

Endpoint ListenEndpoint(const IpAddress& address, const MeasureResponderOptions& options) {
  Endpoint at{address, options.port};
  if (IsLinkLocal(address)) at.scope_id = if_nametoindex(options.device.c_str());
  return at;
}

Endpoint RemoteEndpoint(int fd) {
  sockaddr_storage address{};
  socklen_t length = sizeof(address);
  getpeername(fd, reinterpret_cast<sockaddr*>(&address), &length);
  return Endpoint::From(address);
}

}  // namespace

// Kept alive by its connections and pending accepts, so that the responder may go at any time.
class MeasureResponder::Core : public std::enable_shared_from_this<Core> {
 public:
  Core(asio::io_context& io, MeasureResponderOptions options)
      : io_(io), options_(std::move(options)) {}

  absl::Status Listen();
  void Close();

 private:
  struct Listener {
    Listener(asio::io_context& io, bool v6, UniqueFd fd)
        : acceptor(io, v6 ? tcp::v6() : tcp::v4(), dup(fd.get())), later(io) {}
    tcp::acceptor acceptor;
    asio::steady_timer later;
  };
  class Opening;

  void Accept(Listener& listener);
  void AcceptSoon(Listener& listener);
  bool MayAccept();
  void Welcome(tcp::socket socket);
  void OnLine(Opening& opening, std::string_view line);
  void OnRequest(Opening& opening, const MeasureRequest& request);
  void OnStream(Opening& opening, const MeasureStream& stream);
  void EndSession();

  asio::io_context& io_;
  const MeasureResponderOptions options_;
  std::vector<std::unique_ptr<Listener>> listeners_;
  std::unordered_set<Opening*> openings_;
  std::unique_ptr<MeasureSession> session_;  // the one that runs
  steady_clock::time_point window_start_{};
  int accepted_in_window_ = 0;
  bool closed_ = false;
};

// A connection that has not said yet what it is for.
class MeasureResponder::Core::Opening : public std::enable_shared_from_this<Opening> {
 public:
  Opening(std::shared_ptr<Core> core, tcp::socket socket)
      : core_(std::move(core)),
        socket_(std::move(socket)),
        deadline_(core_->io_),
        remote_(RemoteEndpoint(socket_.native_handle())) {}
  ~Opening() { core_->openings_.erase(this); }

  const Endpoint& remote() const { return remote_; }

  void Start() {
    deadline_.expires_after(std::chrono::nanoseconds(core_->options_.opening_within_ns));
    deadline_.async_wait([self = shared_from_this()](const error_code& error) {
      if (!error) self->End();
    });
    Read();
  }

  void Refuse(const std::string& code, const std::string& message) {
    const std::string line = RenderMeasureLine(MeasureRefused{code, message});
    send(socket_.native_handle(), line.data(), line.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    End();
  }

  // The connection is somebody else's from here on.
  UniqueFd Release() {
    deadline_.cancel();
    error_code error;
    const int fd = socket_.release(error);
    return error ? UniqueFd() : UniqueFd(fd);
  }

  void End() {
    deadline_.cancel();
    error_code ignored;
    socket_.close(ignored);
  }

 private:
  void Read() {
    socket_.async_read_some(asio::buffer(chunk_),
                            [self = shared_from_this()](const error_code& error, size_t size) {
                              if (!error && self->socket_.is_open()) self->OnRead(size);
                              if (error) self->End();
                            });
  }

  void OnRead(size_t size) {
    if (core_->closed_) return End();
    line_.append(chunk_.data(), size);
    const size_t end = line_.find('\n');
    if (end == line_.npos && line_.size() <= kMaxMeasureLineBytes) return Read();
    // Nobody says anything behind the first line before it was answered.
    if (end != line_.size() - 1) {
      return Refuse("bad_request", absl::StrCat("a connection begins with one line of at most ",
                                                kMaxMeasureLineBytes, " bytes"));
    }
    line_.pop_back();
    core_->OnLine(*this, line_);
  }

  const std::shared_ptr<Core> core_;
  tcp::socket socket_;
  asio::steady_timer deadline_;
  const Endpoint remote_;
  std::array<char, 512> chunk_;
  std::string line_;
};

absl::Status MeasureResponder::Core::Listen() {
  absl::Status first;
  for (const IpAddress& address : options_.addresses) {
    auto fd = ListenForTcp(ListenEndpoint(address, options_), options_.device, kMeasureBacklog);
    if (!fd.ok()) {
      first.Update(fd.status());
      continue;
    }
    listeners_.push_back(std::make_unique<Listener>(io_, address.is_v6(), *std::move(fd)));
    Accept(*listeners_.back());
  }
  return first;
}

void MeasureResponder::Core::Accept(Listener& listener) {
  listener.acceptor.async_accept(
      [core = shared_from_this(), &listener](const error_code& error, tcp::socket socket) {
        if (core->closed_) return;
        if (!error) core->Welcome(std::move(socket));
        // Out of descriptors, or more than anybody needs who measures: the kernel's queue takes it.
        if ((error && error != asio::error::connection_aborted) || !core->MayAccept()) {
          return core->AcceptSoon(listener);
        }
        core->Accept(listener);
      });
}

void MeasureResponder::Core::AcceptSoon(Listener& listener) {
  listener.later.expires_after(kAcceptWindow);
  listener.later.async_wait([core = shared_from_this(), &listener](const error_code&) {
    if (!core->closed_) core->Accept(listener);
  });
}

bool MeasureResponder::Core::MayAccept() {
  const auto now = steady_clock::now();
  if (now - window_start_ >= kAcceptWindow) {
    window_start_ = now;
    accepted_in_window_ = 0;
  }
  return ++accepted_in_window_ < kMaxMeasureConnectionsPerSecond;
}

void MeasureResponder::Core::Welcome(tcp::socket socket) {
  const auto opening = std::make_shared<Opening>(shared_from_this(), std::move(socket));
  if (!options_.allows(opening->remote().address)) return;  // closed, without a word
  if (openings_.size() >= kMaxMeasureOpenings) {
    return opening->Refuse("busy", "too many connections at once; try again");
  }
  openings_.insert(opening.get());
  opening->Start();
}

void MeasureResponder::Core::OnLine(Opening& opening, std::string_view text) {
  const auto line = ParseMeasureLine(text);
  if (!line.ok()) return opening.Refuse("bad_request", std::string(line.status().message()));
  if (const auto* request = std::get_if<MeasureRequest>(&*line)) {
    return OnRequest(opening, *request);
  }
  if (const auto* stream = std::get_if<MeasureStream>(&*line)) return OnStream(opening, *stream);
  opening.Refuse("bad_request", "a connection begins with a request or as a stream");
}

void MeasureResponder::Core::OnRequest(Opening& opening, const MeasureRequest& request) {
  if (session_ != nullptr) {
    return opening.Refuse("busy", absl::StrCat("another measurement runs, for ",
                                               session_->seconds_left(), " s at most"));
  }
  MeasureSessionOptions options;
  options.request = request;
  options.limits = options_.session_limits;
  options.remote = opening.remote();
  options.device = options_.device;
  options.public_key = options_.public_key;
  options.tcp_threads = options_.tcp_threads;
  options.on_end = [this, weak = weak_from_this()] {
    asio::post(io_, [weak] {
      if (const auto core = weak.lock()) core->EndSession();
    });
  };
  UniqueFd control = opening.Release();
  if (!control) return;
  options.local = LocalEndpoint(control.get());
  const std::string who = options.remote.address.ToString();
  auto session = std::make_unique<MeasureSession>(std::move(options), std::move(control));
  if (absl::Status status = session->Start(); !status.ok()) {
    return spdlog::warn("{}", std::string(status.message()));
  }
  // A peer decides how often this happens: it must not fill the log.
  spdlog::debug("{} measures for {} s: {}", who, request.plan.seconds,
                std::string(LoadKindName(request.plan.load)));
  session_ = std::move(session);
}

void MeasureResponder::Core::OnStream(Opening& opening, const MeasureStream& stream) {
  UniqueFd fd = opening.Release();
  if (!fd || session_ == nullptr) return;
  session_->AddStream(stream, opening.remote().address, std::move(fd));
}

void MeasureResponder::Core::EndSession() { session_.reset(); }

void MeasureResponder::Core::Close() {
  if (closed_) return;
  closed_ = true;
  for (const auto& listener : listeners_) {
    error_code ignored;
    listener->acceptor.close(ignored);
    listener->later.cancel();
  }
  const auto openings = openings_;
  for (Opening* opening : openings) opening->End();
  session_.reset();
}

MeasureResponder::MeasureResponder(asio::io_context& io, MeasureResponderOptions options)
    : core_(std::make_shared<Core>(io, std::move(options))) {}

MeasureResponder::~MeasureResponder() { Close(); }

absl::Status MeasureResponder::Listen() { return core_->Listen(); }

void MeasureResponder::Close() { core_->Close(); }

}  // namespace braid
