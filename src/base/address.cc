#include "base/address.h"

#include <arpa/inet.h>

#include <charconv>
#include <cstring>

#include "base/bytes.h"

namespace braid {
namespace {

template <typename T>
std::optional<T> ParseNumber(std::string_view text) {
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

}  // namespace

IpAddress IpAddress::V4(const uint8_t* four_bytes) {
  IpAddress address{Family::kV4, {}};
  std::memcpy(address.bytes.data(), four_bytes, 4);
  return address;
}

IpAddress IpAddress::V6(const uint8_t* sixteen_bytes) {
  IpAddress address{Family::kV6, {}};
  std::memcpy(address.bytes.data(), sixteen_bytes, 16);
  return address;
}

std::optional<IpAddress> IpAddress::Parse(std::string_view text) {
  char buffer[INET6_ADDRSTRLEN];
  if (text.size() >= sizeof(buffer) || text.find('\0') != text.npos) return std::nullopt;
  std::memcpy(buffer, text.data(), text.size());
  buffer[text.size()] = '\0';
  uint8_t bytes[16];
  if (inet_pton(AF_INET, buffer, bytes) == 1) return V4(bytes);
  if (inet_pton(AF_INET6, buffer, bytes) == 1) return V6(bytes);
  return std::nullopt;
}

bool IpAddress::is_unspecified() const { return is_set() && bytes == decltype(bytes){}; }

bool IpAddress::is_multicast() const {
  return is_v4() ? (bytes[0] & 0xf0) == 0xe0 : is_v6() && bytes[0] == 0xff;
}

bool IpAddress::is_loopback() const {
  if (is_v4()) return bytes[0] == 127;
  decltype(bytes) one{};
  one.back() = 1;
  return is_v6() && bytes == one;
}

std::string IpAddress::ToString() const {
  if (!is_set()) return "none";
  char buffer[INET6_ADDRSTRLEN];
  inet_ntop(socket_family(), bytes.data(), buffer, sizeof(buffer));
  return buffer;
}

std::optional<IpPrefix> IpPrefix::Parse(std::string_view text) {
  const size_t slash = text.find('/');
  const auto address = IpAddress::Parse(text.substr(0, slash));
  if (!address) return std::nullopt;
  if (slash == std::string_view::npos) return IpPrefix{*address, address->bits()};
  const auto length = ParseNumber<uint8_t>(text.substr(slash + 1));
  if (!length || *length > address->bits()) return std::nullopt;
  return IpPrefix{*address, *length};
}

IpPrefix IpPrefix::Network() const {
  IpPrefix network = *this;
  for (int i = 0; i < 16; ++i) {
    const int kept_bits = length - i * 8;
    if (kept_bits >= 8) continue;
    const uint8_t mask = kept_bits <= 0 ? 0 : static_cast<uint8_t>(0xff << (8 - kept_bits));
    network.address.bytes[i] &= mask;
  }
  return network;
}

bool IpPrefix::Contains(const IpAddress& other) const {
  if (other.family != address.family) return false;
  return IpPrefix{other, length}.Network().address == Network().address;
}

std::string IpPrefix::ToString() const { return address.ToString() + "/" + std::to_string(length); }

std::optional<Endpoint> Endpoint::Parse(std::string_view text) {
  const size_t colon = text.rfind(':');
  if (colon == std::string_view::npos) return std::nullopt;
  std::string_view host = text.substr(0, colon);
  const bool bracketed = host.size() >= 2 && host.front() == '[' && host.back() == ']';
  if (bracketed) host = host.substr(1, host.size() - 2);
  const auto address = IpAddress::Parse(host);
  const auto port = ParseNumber<uint16_t>(text.substr(colon + 1));
  if (!address || !port || *port == 0 || address->is_v6() != bracketed) return std::nullopt;
  return Endpoint{*address, *port};
}

Endpoint Endpoint::From(const sockaddr_storage& from) {
  Endpoint endpoint;
  if (from.ss_family == AF_INET) {
    const auto& v4 = reinterpret_cast<const sockaddr_in&>(from);
    endpoint.address = IpAddress::V4(reinterpret_cast<const uint8_t*>(&v4.sin_addr));
    endpoint.port = ntohs(v4.sin_port);
  } else if (from.ss_family == AF_INET6) {
    const auto& v6 = reinterpret_cast<const sockaddr_in6&>(from);
    endpoint.address = IpAddress::V6(v6.sin6_addr.s6_addr);
    endpoint.port = ntohs(v6.sin6_port);
    endpoint.scope_id = v6.sin6_scope_id;
  }
  return endpoint;
}

socklen_t Endpoint::To(sockaddr_storage& to) const {
  std::memset(&to, 0, sizeof(sockaddr_in6));
  if (address.is_v4()) {
    auto& v4 = reinterpret_cast<sockaddr_in&>(to);
    v4.sin_family = AF_INET;
    v4.sin_port = htons(port);
    std::memcpy(&v4.sin_addr, address.bytes.data(), 4);
    return sizeof(v4);
  }
  auto& v6 = reinterpret_cast<sockaddr_in6&>(to);
  v6.sin6_family = AF_INET6;
  v6.sin6_port = htons(port);
  v6.sin6_scope_id = scope_id;
  std::memcpy(v6.sin6_addr.s6_addr, address.bytes.data(), 16);
  return sizeof(v6);
}

std::string Endpoint::ToString() const {
  if (!is_set()) return "none";
  const std::string host = address.is_v6() ? "[" + address.ToString() + "]" : address.ToString();
  return host + ":" + std::to_string(port);
}

}  // namespace braid
