#include "slowpath/name_resolver.h"

#include <ares.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <cstring>
#include <map>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "io/own_mark.h"

namespace braid {
namespace {

constexpr int kTimeoutMs = 2000;
constexpr int kQueryTries = 3;

int SetMark(ares_socket_t fd, int, void*) {
  SetOwnMark(fd);
  return 0;
}

}  // namespace

std::vector<IpAddress> NameServersIn(std::string_view resolv_conf) {
  std::vector<IpAddress> servers;
  const std::string text(resolv_conf);
  for (const auto line : absl::StrSplit(text, '\n')) {
    const std::vector<std::string> words =
        absl::StrSplit(line, absl::ByAnyChar(" \t\r"), absl::SkipEmpty());
    if (words.size() < 2 || words[0] != "nameserver") continue;
    if (const auto address = IpAddress::Parse(words[1])) servers.push_back(*address);
  }
  return servers;
}

// One question, with the sockets and the timer that it takes. Kept alive by its caller until it is
// done or closed.
class NameResolver::Channel : public std::enable_shared_from_this<NameResolver::Channel> {
 public:
  Channel(boost::asio::io_context& io, Done done) : io_(io), timer_(io), done_(std::move(done)) {}
  ~Channel() { Close(); }

  void Ask(const std::string& host, const std::vector<IpAddress>& servers) {
    ares_options options{};
    options.timeout = kTimeoutMs;
    options.tries = kQueryTries;
    options.flags = ARES_FLAG_NOSEARCH;  // the tunnel's domains are none of theirs
    options.sock_state_cb = [](void* data, ares_socket_t fd, int reads, int writes) {
      static_cast<Channel*>(data)->Watch(fd, reads != 0, writes != 0);
    };
    options.sock_state_cb_data = this;
    const int result = ares_init_options(
        &channel_, &options,
        ARES_OPT_FLAGS | ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES | ARES_OPT_SOCK_STATE_CB);
    if (result != ARES_SUCCESS) return Finish(Failed(result));
    ares_set_socket_configure_callback(channel_, SetMark, nullptr);
    if (!servers.empty()) {
      const std::string list =
          absl::StrJoin(servers, ",", [](std::string* to, const IpAddress& one) {
            absl::StrAppend(to, one.is_v6() ? "[" : "", one.ToString(), one.is_v6() ? "]" : "");
          });
      const int taken = ares_set_servers_csv(channel_, list.c_str());
      if (taken != ARES_SUCCESS) return Finish(Failed(taken));
    }
    ares_addrinfo_hints hints{};
    hints.ai_family = AF_UNSPEC;
    hints.ai_socktype = SOCK_DGRAM;
    hints.ai_flags = ARES_AI_NOSORT;  // sorting would ask the tunnel's routes
    ares_getaddrinfo(
        channel_, host.c_str(), nullptr, &hints,
        [](void* self, int status, int, ares_addrinfo* found) {
          static_cast<Channel*>(self)->OnAnswer(status, found);
        },
        this);
    Schedule();
  }

  // The sockets are c-ares' own: ours are copies, so that each side closes its own.
  void Close() {
    done_ = nullptr;
    timer_.cancel();
    for (auto& [fd, socket] : sockets_) socket->descriptor.close();
    sockets_.clear();
    if (channel_ != nullptr) ares_destroy(channel_);
    channel_ = nullptr;
  }

  bool finished() const { return finished_; }

 private:
  struct Socket {
    boost::asio::posix::stream_descriptor descriptor;
    bool reads = false;
    bool writes = false;
  };

  static absl::Status Failed(int result) { return absl::UnavailableError(ares_strerror(result)); }

  void OnAnswer(int status, ares_addrinfo* found) {
    if (status == ARES_EDESTRUCTION) return;
    if (status != ARES_SUCCESS) return Finish(Failed(status));
    std::vector<IpAddress> addresses;
    for (const ares_addrinfo_node* node = found->nodes; node != nullptr; node = node->ai_next) {
      sockaddr_storage address{};
      std::memcpy(&address, node->ai_addr, std::min<size_t>(node->ai_addrlen, sizeof(address)));
      addresses.push_back(Endpoint::From(address).address);
    }
    ares_freeaddrinfo(found);
    Finish(std::move(addresses));
  }

  // Told in the loop, where c-ares is not in the middle of something.
  void Finish(absl::StatusOr<std::vector<IpAddress>> addresses) {
    finished_ = true;
    boost::asio::post(io_, [self = shared_from_this(), addresses = std::move(addresses)]() mutable {
      Done done = std::move(self->done_);
      self->Close();
      if (done) done(std::move(addresses));
    });
  }

  void Watch(ares_socket_t fd, bool reads, bool writes) {
    if (!reads && !writes) {
      const auto found = sockets_.find(fd);
      if (found == sockets_.end()) return;
      found->second->descriptor.close();  // ends what waits for it
      sockets_.erase(found);
      return;
    }
    auto& socket = sockets_[fd];
    if (socket == nullptr) {
      const int copy = dup(fd);
      if (copy < 0) {
        sockets_.erase(fd);
        return;  // its time limit ends the question
      }
      socket = std::make_shared<Socket>(Socket{{io_, copy}});
    }
    const bool read_before = std::exchange(socket->reads, reads);
    const bool wrote_before = std::exchange(socket->writes, writes);
    if (reads && !read_before) Wait(fd, socket, boost::asio::posix::stream_descriptor::wait_read);
    if (writes && !wrote_before) {
      Wait(fd, socket, boost::asio::posix::stream_descriptor::wait_write);
    }
  }

  void Wait(ares_socket_t fd, const std::shared_ptr<Socket>& socket,
            boost::asio::posix::stream_descriptor::wait_type what) {
    socket->descriptor.async_wait(what, [this, self = shared_from_this(), fd, socket,
                                         what](const boost::system::error_code& error) {
      if (error || channel_ == nullptr || !IsWatched(fd, socket)) return;
      const bool is_read = what == boost::asio::posix::stream_descriptor::wait_read;
      ares_process_fd(channel_, is_read ? fd : ARES_SOCKET_BAD, is_read ? ARES_SOCKET_BAD : fd);
      if (channel_ == nullptr) return;
      if (IsWatched(fd, socket) && (is_read ? socket->reads : socket->writes)) {
        Wait(fd, socket, what);
      }
      Schedule();
    });
  }

  // Another socket may have come to the same number.
  bool IsWatched(ares_socket_t fd, const std::shared_ptr<Socket>& socket) const {
    const auto found = sockets_.find(fd);
    return found != sockets_.end() && found->second == socket;
  }

  void Schedule() {
    timeval left{};
    if (finished_ || channel_ == nullptr || ares_timeout(channel_, nullptr, &left) == nullptr) {
      return;
    }
    timer_.expires_after(std::chrono::seconds(left.tv_sec) +
                         std::chrono::microseconds(left.tv_usec));
    timer_.async_wait([this, self = shared_from_this()](const boost::system::error_code& error) {
      if (error || channel_ == nullptr) return;
      ares_process_fd(channel_, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
      Schedule();
    });
  }

  boost::asio::io_context& io_;
  boost::asio::steady_timer timer_;
  Done done_;
  ares_channel channel_ = nullptr;
  std::map<ares_socket_t, std::shared_ptr<Socket>> sockets_;
  bool finished_ = false;
};

NameResolver::NameResolver(boost::asio::io_context& io) : io_(io) {
  ares_library_init(ARES_LIB_INIT_ALL);
}

NameResolver::~NameResolver() {
  Close();
  ares_library_cleanup();
}

void NameResolver::Resolve(const std::string& host, const std::vector<IpAddress>& servers,
                           Done done) {
  std::erase_if(channels_, [](const auto& channel) { return channel->finished(); });
  channels_.push_back(std::make_shared<Channel>(io_, std::move(done)));
  channels_.back()->Ask(host, servers);
}

void NameResolver::Close() {
  for (const auto& channel : channels_) channel->Close();
  channels_.clear();
}

}  // namespace braid
