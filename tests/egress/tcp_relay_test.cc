// Bytes, ends and resets of TCP flows get through a relay as they would without it. Near ends come
// from 127.0.0.2 here, as neighbours of a device do elsewhere.
#include "egress/tcp_relay.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>

#include <atomic>
#include <mutex>
#include <random>
#include <string>
#include <thread>
#include <vector>

namespace braid::tcp_relay_test {
namespace {

constexpr int kPatienceMs = 10'000;

IpAddress Address(const char* text) { return *IpAddress::Parse(text); }

UniqueFd Bound(const IpAddress& address, uint16_t port = 0) {
  UniqueFd fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const int on = 1;
  setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  sockaddr_storage at;
  const socklen_t length = Endpoint{address, port, 0}.To(at);
  EXPECT_EQ(bind(fd.get(), reinterpret_cast<sockaddr*>(&at), length), 0);
  const timeval patience{kPatienceMs / 1000, 0};
  setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
  setsockopt(fd.get(), SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
  return fd;
}

uint16_t PortOf(const UniqueFd& fd) {
  sockaddr_storage at;
  socklen_t length = sizeof(at);
  getsockname(fd.get(), reinterpret_cast<sockaddr*>(&at), &length);
  return Endpoint::From(at).port;
}

bool ConnectTo(const UniqueFd& fd, uint16_t port) {
  sockaddr_storage at;
  const socklen_t length = Endpoint{Address("127.0.0.1"), port, 0}.To(at);
  return connect(fd.get(), reinterpret_cast<sockaddr*>(&at), length) == 0;
}

// Two ends of a connection that is not relayed: the relay's far end and ours.
struct Pair {
  Pair() {
    UniqueFd listener = Bound(Address("127.0.0.1"));
    listen(listener.get(), 1);
    ours = Bound(Address("127.0.0.1"));
    EXPECT_TRUE(ConnectTo(ours, PortOf(listener)));
    relays = UniqueFd(accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  }
  UniqueFd ours;
  UniqueFd relays;
};

std::string ReadAll(const UniqueFd& fd) {
  std::string all;
  char buffer[65536];
  ssize_t got;
  while ((got = recv(fd.get(), buffer, sizeof(buffer), 0)) > 0) all.append(buffer, got);
  return got == 0 ? all : all + " and then an error";
}

void SendAll(const UniqueFd& fd, const std::string& data) {
  size_t sent = 0;
  while (sent < data.size()) {
    const ssize_t now = send(fd.get(), &data[sent], data.size() - sent, MSG_NOSIGNAL);
    ASSERT_GT(now, 0);
    sent += static_cast<size_t>(now);
  }
}

std::string Noise(size_t bytes, uint32_t seed) {
  std::mt19937 random(seed);
  std::string noise(bytes, 0);
  for (char& letter : noise) letter = static_cast<char>(random());
  return noise;
}

class TcpRelayTest : public ::testing::Test {
 protected:
  void Start(TcpRelay::Options options = {}) {
    options.listen = {Address("127.0.0.1")};
    options.neighbours = {Address("127.0.0.2")};
    options.on_end = [this](const TcpFlowId& flow) {
      const std::lock_guard lock(mutex_);
      if (refuses_ends_ > 0) return --refuses_ends_, false;
      ended_.push_back(flow);
      return true;
    };
    auto relay = TcpRelay::Listen(std::move(options));
    ASSERT_TRUE(relay.ok()) << relay.status();
    relay_ = *std::move(relay);
    relay_->Start();
  }

  struct Flow {
    TcpFlowId id;
    UniqueFd near;
    UniqueFd far;
  };
  // Both of its ends are ours; the relay is between them.
  Flow Open() {
    Flow flow{{}, Bound(Address("127.0.0.2")), {}};
    flow.id.port = PortOf(flow.near);
    flow.id.generation = ++generation_;
    Pair pair;
    EXPECT_TRUE(relay_->Expect(flow.id, std::move(pair.relays)));
    EXPECT_TRUE(ConnectTo(flow.near, relay_->PortOf(IpAddress::Family::kV4)));
    flow.far = std::move(pair.ours);
    return flow;
  }

  std::vector<TcpFlowId> Ended() {
    const std::lock_guard lock(mutex_);
    return ended_;
  }

  bool AwaitEnds(size_t count) {
    for (int i = 0; i < kPatienceMs; ++i) {
      if (Ended().size() == count) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return false;
  }

  std::mutex mutex_;
  std::vector<TcpFlowId> ended_;
  int refuses_ends_ = 0;
  uint32_t generation_ = 0;
  std::unique_ptr<TcpRelay> relay_;
};

TEST_F(TcpRelayTest, BytesGoBothWaysAndEachEndIsPassedOnByItself) {
  Start();
  Flow flow = Open();
  SendAll(flow.near, "question");
  shutdown(flow.near.get(), SHUT_WR);
  EXPECT_EQ(ReadAll(flow.far), "question");
  SendAll(flow.far, "a long ");
  SendAll(flow.far, "answer");
  EXPECT_TRUE(Ended().empty());
  flow.far = {};
  EXPECT_EQ(ReadAll(flow.near), "a long answer");
  ASSERT_TRUE(AwaitEnds(1));
  EXPECT_EQ(Ended()[0], flow.id);
  EXPECT_EQ(relay_->totals().up_bytes.Get(), 8u);
  EXPECT_EQ(relay_->totals().down_bytes.Get(), 13u);
  EXPECT_EQ(relay_->totals().flows.load(), 0u);
}

TEST_F(TcpRelayTest, TheFarEndMayEndFirst) {
  Start();
  Flow flow = Open();
  SendAll(flow.far, "welcome");
  shutdown(flow.far.get(), SHUT_WR);
  EXPECT_EQ(ReadAll(flow.near), "welcome");
  SendAll(flow.near, "thanks");
  flow.near = {};
  EXPECT_EQ(ReadAll(flow.far), "thanks");
  EXPECT_TRUE(AwaitEnds(1));
}

// Its port would else be another's while it is still to be told something.
TEST_F(TcpRelayTest, AFlowIsNotOverBeforeTheNearEndHasAllOfIt) {
  Start();
  Flow flow = Open();
  const std::string answer = Noise(6 << 20, 1);
  shutdown(flow.near.get(), SHUT_WR);
  EXPECT_EQ(ReadAll(flow.far), "");
  std::thread sends([&] {
    SendAll(flow.far, answer);
    flow.far = {};
  });
  sends.join();
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  EXPECT_TRUE(Ended().empty());
  EXPECT_TRUE(ReadAll(flow.near) == answer);
  EXPECT_TRUE(AwaitEnds(1));
}

TEST_F(TcpRelayTest, WhatCameBeforeAResetIsPassedOn) {
  Start();
  for (int i = 0; i < 20; ++i) {
    Flow flow = Open();
    SendAll(flow.near, "x");
    char byte;
    ASSERT_EQ(recv(flow.far.get(), &byte, 1, 0), 1);
    SendAll(flow.near, "what is not read makes a reset of the end");
    SendAll(flow.far, "last words");
    flow.far = {};
    EXPECT_EQ(ReadAll(flow.near).substr(0, 10), "last words");
  }
}

TEST_F(TcpRelayTest, AResetIsPassedOnAsOne) {
  Start();
  for (const bool near_resets : {true, false}) {
    Flow flow = Open();
    SendAll(flow.near, "x");
    char byte;
    ASSERT_EQ(recv(flow.far.get(), &byte, 1, 0), 1);
    UniqueFd& resets = near_resets ? flow.near : flow.far;
    const linger now{1, 0};
    setsockopt(resets.get(), SOL_SOCKET, SO_LINGER, &now, sizeof(now));
    resets = {};
    EXPECT_EQ(recv((near_resets ? flow.far : flow.near).get(), &byte, 1, 0), -1);
    EXPECT_EQ(errno, ECONNRESET);
  }
  EXPECT_TRUE(AwaitEnds(2));
}

TEST_F(TcpRelayTest, WhatNobodyExpectedIsReset) {
  Start();
  UniqueFd stranger = Bound(Address("127.0.0.2"));
  EXPECT_TRUE(ConnectTo(stranger, relay_->PortOf(IpAddress::Family::kV4)));
  EXPECT_EQ(ReadAll(stranger), " and then an error");
  // Also where the port is right, but not the address.
  Flow flow{{}, Bound(Address("127.0.0.3")), {}};
  flow.id.port = PortOf(flow.near);
  Pair pair;
  EXPECT_TRUE(relay_->Expect(flow.id, std::move(pair.relays)));
  EXPECT_TRUE(ConnectTo(flow.near, relay_->PortOf(IpAddress::Family::kV4)));
  EXPECT_EQ(ReadAll(flow.near), " and then an error");
  EXPECT_EQ(relay_->totals().unexpected.Get(), 2u);
}

TEST_F(TcpRelayTest, AFarEndMayComeLater) {
  Start();
  Flow flow{{}, Bound(Address("127.0.0.2")), {}};
  flow.id.port = PortOf(flow.near);
  EXPECT_TRUE(relay_->Expect(flow.id, UniqueFd()));
  EXPECT_TRUE(ConnectTo(flow.near, relay_->PortOf(IpAddress::Family::kV4)));
  SendAll(flow.near, "early");
  Pair pair;
  EXPECT_TRUE(relay_->Connect(flow.id, std::move(pair.relays)));
  shutdown(flow.near.get(), SHUT_WR);
  EXPECT_EQ(ReadAll(pair.ours), "early");
}

TEST_F(TcpRelayTest, AFlowIsResetByCommandAndOnlyIt) {
  Start();
  Flow flow = Open(), other = Open();
  TcpFlowId earlier = flow.id;
  --earlier.generation;
  EXPECT_TRUE(relay_->Reset(earlier));
  SendAll(flow.near, "still there");
  char byte;
  EXPECT_EQ(recv(flow.far.get(), &byte, 1, 0), 1);
  EXPECT_TRUE(relay_->Reset(flow.id));
  EXPECT_EQ(ReadAll(flow.near), " and then an error");
  SendAll(other.near, "y");
  EXPECT_EQ(recv(other.far.get(), &byte, 1, 0), 1);
  EXPECT_TRUE(relay_->ResetAll());
  EXPECT_EQ(ReadAll(other.near), " and then an error");
  EXPECT_TRUE(AwaitEnds(2));
}

TEST_F(TcpRelayTest, OneThatNobodyComesForIsGivenUp) {
  Start({.accept_within_ns = 10 * kMillisecondNs});
  Pair pair;
  EXPECT_TRUE(relay_->Expect({0, false, 1234, 0, 0}, std::move(pair.relays)));
  EXPECT_EQ(ReadAll(pair.ours), " and then an error");
  EXPECT_TRUE(AwaitEnds(1));
}

TEST_F(TcpRelayTest, AnIdleFlowIsEnded) {
  Start({.idle_ns = 10 * kMillisecondNs});
  Flow flow = Open();
  EXPECT_EQ(ReadAll(flow.near), " and then an error");
  EXPECT_TRUE(AwaitEnds(1));
  EXPECT_EQ(relay_->totals().idle.Get(), 1u);
}

TEST_F(TcpRelayTest, WhenItStopsBothEndsSeeTheEnd) {
  Start();
  Flow flow = Open();
  SendAll(flow.near, "x");
  char byte;
  EXPECT_EQ(recv(flow.far.get(), &byte, 1, 0), 1);
  relay_->Stop();
  EXPECT_EQ(ReadAll(flow.near), "");
  EXPECT_EQ(ReadAll(flow.far), "");
}

TEST_F(TcpRelayTest, ALaterFlowOfAPortEndsOneThatNobodyCameFor) {
  Start();
  Flow later{{}, Bound(Address("127.0.0.2")), {}};
  later.id.port = PortOf(later.near);
  later.id.generation = 2;
  TcpFlowId earlier = later.id;
  earlier.generation = 1;
  Pair first, second;
  EXPECT_TRUE(relay_->Expect(earlier, std::move(first.relays)));
  EXPECT_TRUE(relay_->Expect(later.id, std::move(second.relays)));
  EXPECT_EQ(ReadAll(first.ours), " and then an error");
  ASSERT_TRUE(AwaitEnds(1));
  EXPECT_EQ(Ended()[0], earlier);
  EXPECT_TRUE(ConnectTo(later.near, relay_->PortOf(IpAddress::Family::kV4)));
  SendAll(later.near, "x");
  char byte;
  EXPECT_EQ(recv(second.ours.get(), &byte, 1, 0), 1);
}

TEST_F(TcpRelayTest, WhoeverIsToBeToldOfEndsIsToldUntilItTakesThem) {
  Start();
  refuses_ends_ = 3;
  for (int i = 0; i < 4; ++i) Open();
  EXPECT_TRUE(AwaitEnds(4));
}

// Who does not read keeps the other from sending, and next to nothing is kept in between.
TEST_F(TcpRelayTest, ASlowReaderHoldsTheSenderUp) {
  Start();
  Flow flow = Open();
  const std::string data = Noise(64 << 20, 1);
  std::atomic<bool> done{false};
  std::thread sender([&] {
    SendAll(flow.far, data);
    flow.far = {};
    done = true;
  });
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  EXPECT_FALSE(done);
  EXPECT_LE(relay_->totals().kept_bytes.load(), 512u << 10);
  EXPECT_TRUE(ReadAll(flow.near) == data);
  sender.join();
  EXPECT_EQ(relay_->totals().kept_bytes.load(), 0u);
}

TEST_F(TcpRelayTest, ManyFlowsAtOnceKeepTheirBytesApart) {
  Start();
  std::vector<std::thread> threads;
  for (uint32_t i = 0; i < 24; ++i) {
    threads.emplace_back([i, flow = std::make_shared<Flow>(Open())] {
      const std::string up = Noise(10'000 * (i + 1), i), down = Noise(50'000 * (i + 1), 100 + i);
      std::thread sends_up([&] {
        for (size_t at = 0; at < up.size(); at += 777 * (i + 1)) {
          SendAll(flow->near, up.substr(at, 777 * (i + 1)));
        }
        shutdown(flow->near.get(), SHUT_WR);
      });
      std::thread sends_down([&] {
        SendAll(flow->far, down);
        shutdown(flow->far.get(), SHUT_WR);
      });
      std::string got_down;
      std::thread reads([&] { got_down = ReadAll(flow->near); });
      const std::string got_up = ReadAll(flow->far);
      sends_up.join();
      sends_down.join();
      reads.join();
      EXPECT_TRUE(got_up == up) << i;
      EXPECT_TRUE(got_down == down) << i;
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_TRUE(AwaitEnds(24));
}

TEST_F(TcpRelayTest, WhenAllPlacesAreTakenAnotherIsRefused) {
  Start({.max_flows = 1});
  Flow flow = Open();
  SendAll(flow.near, "x");
  char byte;
  EXPECT_EQ(recv(flow.far.get(), &byte, 1, 0), 1);
  Flow second = Open();
  EXPECT_EQ(ReadAll(second.near), " and then an error");
  ASSERT_TRUE(AwaitEnds(1));
  EXPECT_EQ(Ended()[0], second.id);
  SendAll(flow.near, "y");
  EXPECT_EQ(recv(flow.far.get(), &byte, 1, 0), 1);
}

}  // namespace
}  // namespace braid::tcp_relay_test
