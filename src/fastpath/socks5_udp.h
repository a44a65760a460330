// The header that stands before each datagram to and from a SOCKS5 server (RFC 1928, section 7),
// big-endian: reserved (2), fragment (1), type of address (1), address, port (2). Nothing is
// allocated.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>

#include "base/address.h"
#include "base/bytes.h"

namespace braid {

// Types of addresses, also in requests and replies.
inline constexpr uint8_t kSocks5AddressV4 = 1;
inline constexpr uint8_t kSocks5AddressDomain = 3;  // a byte says how many follow
inline constexpr uint8_t kSocks5AddressV6 = 4;

inline constexpr size_t kMaxSocks5UdpHeaderBytes = 4 + 16 + 2;  // with an address, not a domain

struct Socks5UdpHeader {
  IpAddress address;  // not set where it came as a domain
  uint16_t port = 0;
  size_t length = 0;      // in bytes; the payload begins there
  bool fragment = false;  // of a datagram in parts: who does not put them together drops it

  bool operator==(const Socks5UdpHeader&) const = default;
};

// `address` is set. Returns the bytes written to `to`, which holds kMaxSocks5UdpHeaderBytes.
size_t WriteSocks5UdpHeader(const IpAddress& address, uint16_t port, MutableBytes to);

// Nothing when the header is not whole, or its type of address unknown. The payload may be empty.
std::optional<Socks5UdpHeader> ReadSocks5UdpHeader(Bytes datagram);

}  // namespace braid
