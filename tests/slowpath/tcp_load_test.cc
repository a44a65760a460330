#include "slowpath/tcp_load.h"

#include <gtest/gtest.h>
#include <sys/socket.h>

#include <array>

namespace braid::tcp_load_test {
namespace {

TEST(TcpLoad, SendsSomethingHoweverLateItsThreadComes) {
  int pair[2];
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
  const UniqueFd receiver(pair[1]);
  std::vector<TcpLoad::Stream> streams;
  streams.push_back({UniqueFd(pair[0]), true});
  TcpLoad load(std::move(streams), 1);
  load.Start(MonotonicNowNs() - kSecondNs);  // it was to have ended already
  std::array<char, 4096> buffer;
  size_t bytes = 0;
  ssize_t got;
  while ((got = recv(receiver.get(), buffer.data(), buffer.size(), 0)) > 0) {
    bytes += static_cast<size_t>(got);
  }
  EXPECT_EQ(got, 0);
  EXPECT_GT(bytes, 0u);
}

}  // namespace
}  // namespace braid::tcp_load_test
