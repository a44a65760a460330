// What becomes of a connection to somewhere is told once, and as what its initiator would see.
#include "slowpath/tcp_dialer.h"

#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <cerrno>
#include <optional>

namespace braid::tcp_dialer_test {
namespace {

using Type = TcpVerdict::Type;
using std::chrono::milliseconds;

class Listener {
 public:
  explicit Listener(int backlog = 16) : fd_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_storage at;
    socklen_t length = Endpoint{*IpAddress::Parse("127.0.0.1"), 0, 0}.To(at);
    EXPECT_EQ(bind(fd_.get(), reinterpret_cast<sockaddr*>(&at), length), 0);
    length = sizeof(at);
    getsockname(fd_.get(), reinterpret_cast<sockaddr*>(&at), &length);
    endpoint_ = Endpoint::From(at);
    if (backlog >= 0) {
      EXPECT_EQ(listen(fd_.get(), backlog), 0);
    }
  }
  const Endpoint& endpoint() const { return endpoint_; }
  UniqueFd Accept() { return UniqueFd(accept(fd_.get(), nullptr, nullptr)); }

 private:
  UniqueFd fd_;
  Endpoint endpoint_;
};

class TcpDialerTest : public ::testing::Test {
 protected:
  Dialed Dial(const Endpoint& to, milliseconds timeout = milliseconds(5000)) {
    TcpDialer dialer(io_, timeout);
    std::optional<Dialed> dialed;
    dialer.Dial(to, [&](Dialed what) {
      EXPECT_FALSE(dialed) << "told twice";
      dialed = std::move(what);
    });
    EXPECT_EQ(dialer.under_way(), 1u);
    io_.restart();
    io_.run();
    EXPECT_EQ(dialer.under_way(), 0u);
    EXPECT_TRUE(dialed);
    return std::move(dialed).value_or(Dialed{});
  }

  boost::asio::io_context io_;
};

TEST_F(TcpDialerTest, AConnectionIsGivenAway) {
  Listener listener;
  const Dialed dialed = Dial(listener.endpoint());
  EXPECT_EQ(dialed.verdict, Type::kOpen);
  const UniqueFd accepted = listener.Accept();
  ASSERT_EQ(send(dialed.far.get(), "x", 1, 0), 1);
  char byte;
  EXPECT_EQ(recv(accepted.get(), &byte, 1, 0), 1);
}

TEST_F(TcpDialerTest, ARefusalIsOne) {
  const Listener nobody(-1);
  EXPECT_EQ(Dial(nobody.endpoint()).verdict, Type::kRefuse);
}

TEST_F(TcpDialerTest, SilenceEndsWithTheTime) {
  // Where no more connections are taken in nothing answers.
  Listener full(0);
  std::vector<Dialed> kept;
  for (int i = 0; i < 4; ++i) {
    kept.push_back(Dial(full.endpoint(), milliseconds(100)));
    if (kept.back().verdict != Type::kOpen) break;
  }
  EXPECT_EQ(kept.back().verdict, Type::kForget);
}

TEST_F(TcpDialerTest, WhatTheKernelSaysIsPassedOn) {
  const auto unreachable = [](int number, IcmpError::What error) {
    const Dialed dialed = NotDialed(number);
    return dialed.verdict == Type::kUnreachable && dialed.error == error;
  };
  EXPECT_TRUE(unreachable(ENETUNREACH, IcmpError::What::kNoNetwork));
  EXPECT_TRUE(unreachable(EHOSTUNREACH, IcmpError::What::kNoHost));
  EXPECT_TRUE(unreachable(EACCES, IcmpError::What::kProhibited));
  EXPECT_EQ(NotDialed(ECONNREFUSED).verdict, Type::kRefuse);
  EXPECT_EQ(NotDialed(EMFILE).verdict, Type::kRefuse);
  EXPECT_EQ(NotDialed(ETIMEDOUT).verdict, Type::kForget);
}

TEST_F(TcpDialerTest, NothingIsToldAfterItsEnd) {
  Listener listener;
  {
    TcpDialer dialer(io_, milliseconds(5000));
    for (int i = 0; i < 3; ++i) dialer.Dial(listener.endpoint(), [](Dialed) { FAIL(); });
  }
  io_.run();
}

TEST_F(TcpDialerTest, WhatIsGivenUpIsNotTold) {
  Listener listener;
  TcpDialer dialer(io_, milliseconds(5000));
  int told = 0;
  const TcpDialer::GiveUp first = dialer.Dial(listener.endpoint(), [](Dialed) { FAIL(); });
  const TcpDialer::GiveUp second = dialer.Dial(listener.endpoint(), [&](Dialed) { ++told; });
  first();
  EXPECT_EQ(dialer.under_way(), 1u);
  first();
  io_.run();
  EXPECT_EQ(told, 1);
  second();  // too late
  EXPECT_EQ(dialer.under_way(), 0u);
}

}  // namespace
}  // namespace braid::tcp_dialer_test
