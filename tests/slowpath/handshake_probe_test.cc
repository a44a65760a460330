#include "slowpath/handshake_probe.h"

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>

#include <array>
#include <atomic>
#include <functional>
#include <optional>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "io/udp.h"
#include "slowpath/cookie.h"
#include "slowpath/handshake.h"

namespace braid::handshake_probe_test {
namespace {

IpAddress Loopback() { return *IpAddress::Parse("127.0.0.1"); }

// A server on the loopback, on a thread of its own, that answers the first so many initiations with
// a cookie, and others if it knows who asks.
class Server {
 public:
  Server(const Key& client, int cookies) : client_(client), cookies_(cookies) {
    UdpSocketOptions options;
    options.address = Loopback();
    options.coalesce = false;
    socket_ = *OpenUdp(options);
    thread_ = std::thread([this] { Serve(); });
  }
  ~Server() { Stop(); }

  void Stop() {
    stop_ = true;
    if (thread_.joinable()) thread_.join();
  }
  const Key& public_key() const { return identity_.public_key; }
  const Endpoint& endpoint() const { return socket_.local; }
  // Of those that were answered. After Stop().
  const std::vector<uint64_t>& counters() const { return counters_; }

 private:
  void Serve() {
    CookieChecker checker(identity_.public_key);
    while (!stop_) {
      pollfd event{socket_.fd.get(), POLLIN, 0};
      if (poll(&event, 1, 20) <= 0) continue;
      std::array<uint8_t, kMaxHandshakeBytes> datagram;
      sockaddr_storage from{};
      socklen_t length = sizeof(from);
      const ssize_t bytes = recvfrom(socket_.fd.get(), datagram.data(), datagram.size(), 0,
                                     reinterpret_cast<sockaddr*>(&from), &length);
      if (bytes > 0) Answer(checker, {datagram.data(), static_cast<size_t>(bytes)}, from);
    }
  }

  void Answer(CookieChecker& checker, Bytes message, const sockaddr_storage& from) {
    const Endpoint source = Endpoint::From(from);
    std::array<uint8_t, kMaxHandshakeBytes> out;
    const bool under_load = cookies_ > 0;
    const Admission admission = checker.Admit(message, source, under_load, MonotonicNowNs());
    if (under_load) {
      --cookies_;
      const auto bytes = checker.WriteCookie(message, source, MonotonicNowNs(), out);
      if (bytes.ok()) SendDatagram(socket_.fd.get(), source, {}, {out.data(), *bytes});
      return;
    }
    if (admission != Admission::kAdmitted) return;
    const auto keys = PeerKeys::Create(identity_, client_);
    auto handshake = ResponderHandshake::Read(identity_, message, [&](const Key& key) {
      return keys.ok() && key == client_ ? &*keys : nullptr;
    });
    if (!handshake.ok()) return;
    counters_.push_back(handshake->initiation().counter);
    MacStamper stamper(client_);
    const auto answer = handshake->Write(0, {.sender_index = 7, .lanes = 1, .mtu = 1280}, stamper,
                                         MonotonicNowNs(), out);
    if (answer.ok()) SendDatagram(socket_.fd.get(), source, {}, {out.data(), answer->size});
  }

  const Key client_;
  const Identity identity_ = KeyPair::Generate();
  std::atomic<int> cookies_;
  UdpSocket socket_;
  std::vector<uint64_t> counters_;
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

absl::StatusOr<HandshakeAnswer> Ask(const Endpoint& remote, const Identity& client,
                                    const Key& server, uint64_t first_counter = 100) {
  const auto keys = PeerKeys::Create(client, server);
  if (!keys.ok()) return keys.status();
  return AskForHandshake({remote, Loopback(), ""}, client, *keys,
                         [&first_counter] { return first_counter++; });
}

TEST(HandshakeProbe, AServerThatKnowsTheClientAnswers) {
  const Identity client = KeyPair::Generate();
  Server server(client.public_key, 0);
  const auto answer = Ask(server.endpoint(), client, server.public_key());
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_FALSE(answer->busy);
  EXPECT_GT(answer->rtt_ms, 0);
  server.Stop();
  EXPECT_EQ(server.counters().front(), 100u);
}

TEST(HandshakeProbe, ACookieIsUsedAtTheNextTry) {
  const Identity client = KeyPair::Generate();
  Server server(client.public_key, 1);
  const auto answer = Ask(server.endpoint(), client, server.public_key());
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_FALSE(answer->busy);
  server.Stop();
  EXPECT_EQ(server.counters().front(), 101u);
}

TEST(HandshakeProbe, AServerThatOnlyGivesCookiesIsBusy) {
  const Identity client = KeyPair::Generate();
  Server server(client.public_key, 1000);
  const auto answer = Ask(server.endpoint(), client, server.public_key());
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_TRUE(answer->busy);
}

TEST(HandshakeProbe, AStrangerGetsNoAnswer) {
  Server server(KeyPair::Generate().public_key, 0);
  const auto answer = Ask(server.endpoint(), KeyPair::Generate(), server.public_key());
  EXPECT_TRUE(absl::IsDeadlineExceeded(answer.status())) << answer.status();
}

TEST(HandshakeProbe, APortWithoutAListenerRefuses) {
  const Identity client = KeyPair::Generate();
  Endpoint nobody;
  {
    const Server server(client.public_key, 0);
    nobody = server.endpoint();
  }
  const auto answer = Ask(nobody, client, KeyPair::Generate().public_key);
  EXPECT_TRUE(absl::IsUnavailable(answer.status())) << answer.status();
}

}  // namespace
}  // namespace braid::handshake_probe_test
