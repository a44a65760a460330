#include "fastpath/socks5_udp.h"

#include <cstring>

namespace braid {
namespace {

constexpr size_t kSocks5UdpFragmentAt = 2;
constexpr size_t kSocks5UdpTypeAt = 3;
constexpr size_t kSocks5UdpAddressAt = 4;
constexpr size_t kSocks5UdpPortBytes = 2;

// Of the whole header; 0 when that cannot be told.
size_t Socks5UdpHeaderBytes(Bytes datagram) {
  // Any whole header has the byte that says how long a domain is.
  if (datagram.size() <= kSocks5UdpAddressAt) return 0;
  constexpr size_t kAround = kSocks5UdpAddressAt + kSocks5UdpPortBytes;
  switch (datagram[kSocks5UdpTypeAt]) {
    case kSocks5AddressV4:
      return kAround + 4;
    case kSocks5AddressV6:
      return kAround + 16;
    case kSocks5AddressDomain:
      return kAround + 1 + datagram[kSocks5UdpAddressAt];
    default:
      return 0;
  }
}

}  // namespace

size_t WriteSocks5UdpHeader(const IpAddress& address, uint16_t port, MutableBytes to) {
  const size_t address_bytes = address.is_v4() ? 4 : 16;
  uint8_t* const at = to.data();
  std::memset(at, 0, kSocks5UdpTypeAt);
  at[kSocks5UdpTypeAt] = address.is_v4() ? kSocks5AddressV4 : kSocks5AddressV6;
  std::memcpy(at + kSocks5UdpAddressAt, address.bytes.data(), address_bytes);
  StoreBe16(at + kSocks5UdpAddressAt + address_bytes, port);
  return kSocks5UdpAddressAt + address_bytes + kSocks5UdpPortBytes;
}

std::optional<Socks5UdpHeader> ReadSocks5UdpHeader(Bytes datagram) {
  const size_t length = Socks5UdpHeaderBytes(datagram);
  if (length == 0 || datagram.size() < length) return std::nullopt;
  const uint8_t* const from = datagram.data();
  Socks5UdpHeader header;
  if (from[kSocks5UdpTypeAt] == kSocks5AddressV4) {
    header.address = IpAddress::V4(from + kSocks5UdpAddressAt);
  } else if (from[kSocks5UdpTypeAt] == kSocks5AddressV6) {
    header.address = IpAddress::V6(from + kSocks5UdpAddressAt);
  }
  header.port = LoadBe16(from + length - kSocks5UdpPortBytes);
  header.length = length;
  header.fragment = from[kSocks5UdpFragmentAt] != 0;
  return header;
}

}  // namespace braid
