// IP addresses, prefixes and UDP endpoints as plain values: comparable, hashable by their bytes,
// and free of allocation except where they are printed or parsed.
#pragma once

#include <netinet/in.h>

#include <array>
#include <compare>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace braid {

struct IpAddress {
  enum class Family : uint8_t { kNone = 0, kV4 = 4, kV6 = 6 };

  Family family = Family::kNone;
  std::array<uint8_t, 16> bytes{};  // an IPv4 address fills the first four, the rest is zero

  static IpAddress V4(const uint8_t* four_bytes);
  static IpAddress V6(const uint8_t* sixteen_bytes);
  // "10.0.0.1" or "fd00::1"; nothing else, no zone, no brackets.
  static std::optional<IpAddress> Parse(std::string_view text);
  // 0.0.0.0 or ::, which a socket binds to for any.
  static IpAddress Any(Family family) { return {family, {}}; }

  bool is_v4() const { return family == Family::kV4; }
  bool is_v6() const { return family == Family::kV6; }
  bool is_set() const { return family != Family::kNone; }
  bool is_unspecified() const;  // 0.0.0.0 or ::
  bool is_loopback() const;     // of 127.0.0.0/8, or ::1
  bool is_multicast() const;    // of 224.0.0.0/4, or ff00::/8
  int bits() const { return is_v4() ? 32 : 128; }
  int bytes_used() const { return bits() / 8; }
  int socket_family() const { return is_v4() ? AF_INET : AF_INET6; }
  std::string ToString() const;

  auto operator<=>(const IpAddress&) const = default;
  template <typename H>
  friend H AbslHashValue(H state, const IpAddress& address) {
    return H::combine(std::move(state), address.family, address.bytes);
  }
};

struct IpPrefix {
  IpAddress address;  // host bits are kept as written, so that "10.0.0.1/24" can name an interface
  int length = 0;

  // "10.0.0.0/24", "fd00::/64"; a bare address is a host prefix.
  static std::optional<IpPrefix> Parse(std::string_view text);
  // The same prefix with its host bits cleared.
  IpPrefix Network() const;
  bool Contains(const IpAddress& other) const;
  // Some address is in both.
  bool Overlaps(const IpPrefix& other) const {
    return Contains(other.address) || other.Contains(address);
  }
  std::string ToString() const;

  auto operator<=>(const IpPrefix&) const = default;
};

struct Endpoint {
  IpAddress address;
  uint16_t port = 0;
  uint32_t scope_id = 0;  // of a link-local IPv6 address

  // "10.0.0.1:7700" or "[fd00::1]:7700".
  static std::optional<Endpoint> Parse(std::string_view text);
  static Endpoint From(const sockaddr_storage& from);
  // Fills `to` and returns the length that the kernel wants with it.
  socklen_t To(sockaddr_storage& to) const;
  bool is_set() const { return address.is_set(); }
  std::string ToString() const;

  auto operator<=>(const Endpoint&) const = default;
};

}  // namespace braid
