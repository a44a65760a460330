// The header of SOCKS5 datagrams: its bytes, what is read of them, and what is not.
#include "fastpath/socks5_udp.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <vector>

namespace braid::socks5_udp_test {
namespace {

using Buffer = std::vector<uint8_t>;

const IpAddress kV4 = *IpAddress::Parse("192.0.2.7");
const IpAddress kV6 = *IpAddress::Parse("2001:db8::1234");

const Buffer kV4Header = {0, 0, 0, 1, 192, 0, 2, 7, 0x14, 0xe9};
const Buffer kV6Header = {0, 0, 0, 4, 0x20, 0x01, 0x0d, 0xb8, 0,    0,    0,
                          0, 0, 0, 0, 0,    0,    0,    0x12, 0x34, 0x14, 0xe9};

Buffer DomainHeader(size_t bytes) {
  Buffer header = {0, 0, 0, 3, static_cast<uint8_t>(bytes)};
  header.insert(header.end(), bytes, 'x');
  header.insert(header.end(), {0x14, 0xe9});
  return header;
}

Buffer Written(const IpAddress& address, uint16_t port) {
  Buffer header(kMaxSocks5UdpHeaderBytes, 0xee);
  header.resize(WriteSocks5UdpHeader(address, port, header));
  return header;
}

TEST(Socks5Udp, WritesTheBytesOfTheStandard) {
  EXPECT_EQ(Written(kV4, 5353), kV4Header);
  EXPECT_EQ(Written(kV6, 5353), kV6Header);
  EXPECT_EQ(kV6Header.size(), kMaxSocks5UdpHeaderBytes);
}

TEST(Socks5Udp, WritesNothingBehindTheHeader) {
  Buffer to(kMaxSocks5UdpHeaderBytes, 0xee);
  const size_t bytes = WriteSocks5UdpHeader(kV4, 5353, to);
  EXPECT_EQ(std::count(to.begin(), to.end(), 0xee),
            static_cast<ptrdiff_t>(kMaxSocks5UdpHeaderBytes - bytes));
}

TEST(Socks5Udp, ReadsWhatItWrote) {
  for (const IpAddress& address : {kV4, kV6, IpAddress::Any(IpAddress::Family::kV4)}) {
    for (const uint16_t port : std::array<uint16_t, 4>{0, 1, 0x1234, 65535}) {
      const Buffer header = Written(address, port);
      EXPECT_EQ(ReadSocks5UdpHeader(header), (Socks5UdpHeader{address, port, header.size(), false}))
          << address.ToString() << " " << port;
    }
  }
}

TEST(Socks5Udp, ThePayloadBeginsBehindEveryTypeOfAddress) {
  std::vector<Buffer> headers = {kV4Header, kV6Header};
  for (size_t bytes = 0; bytes <= 255; ++bytes) headers.push_back(DomainHeader(bytes));
  for (const Buffer& header : headers) {
    for (const size_t payload_bytes : {0, 1, 1400}) {
      Buffer datagram = header;
      datagram.resize(header.size() + payload_bytes, 0x77);
      const auto read = ReadSocks5UdpHeader(datagram);
      ASSERT_TRUE(read) << header.size();
      EXPECT_EQ(read->length, header.size());
      EXPECT_EQ(read->port, 5353);
    }
  }
}

TEST(Socks5Udp, ADomainIsNoAddress) {
  EXPECT_EQ(ReadSocks5UdpHeader(DomainHeader(11)), (Socks5UdpHeader{{}, 5353, 18, false}));
}

TEST(Socks5Udp, RefusesAHeaderThatIsNotWhole) {
  for (const Buffer& header : {kV4Header, kV6Header, DomainHeader(0), DomainHeader(255)}) {
    for (size_t bytes = 0; bytes < header.size(); ++bytes) {
      // Of its own size, so that reads beyond it are noticed.
      const Buffer datagram(header.begin(), header.begin() + static_cast<ptrdiff_t>(bytes));
      EXPECT_FALSE(ReadSocks5UdpHeader(datagram)) << bytes << " of " << header.size();
    }
  }
}

TEST(Socks5Udp, RefusesEveryOtherTypeOfAddress) {
  for (int type = 0; type < 256; ++type) {
    Buffer datagram(600, 0);
    datagram[3] = static_cast<uint8_t>(type);
    EXPECT_EQ(ReadSocks5UdpHeader(datagram).has_value(), type == 1 || type == 3 || type == 4)
        << type;
  }
}

TEST(Socks5Udp, TellsOfFragments) {
  for (int fragment = 0; fragment < 256; ++fragment) {
    Buffer datagram = kV4Header;
    datagram[2] = static_cast<uint8_t>(fragment);
    EXPECT_EQ(ReadSocks5UdpHeader(datagram), (Socks5UdpHeader{kV4, 5353, 10, fragment != 0}));
  }
}

TEST(Socks5Udp, DoesNotLookAtWhatIsReserved) {
  Buffer datagram = kV6Header;
  datagram[0] = 0xff;
  datagram[1] = 0x01;
  EXPECT_EQ(ReadSocks5UdpHeader(datagram), (Socks5UdpHeader{kV6, 5353, 22, false}));
}

}  // namespace
}  // namespace braid::socks5_udp_test
