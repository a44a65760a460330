#include "identities.h"

#include <array>

namespace braid::swarm {
namespace {

constexpr uint32_t kServerNumber = UINT32_MAX;

Identity IdentityOf(const std::string& seed, uint32_t number) {
  std::array<uint8_t, 4> suffix;
  StoreBe32(suffix.data(), number);
  return Identity::FromPrivate(
      Blake2s({Bytes(reinterpret_cast<const uint8_t*>(seed.data()), seed.size()), suffix}));
}

}  // namespace

Identity ClientIdentity(const std::string& seed, uint32_t number) {
  return IdentityOf(seed, number);
}

Identity ServerIdentity(const std::string& seed) { return IdentityOf(seed, kServerNumber); }

IpAddress V4(uint32_t address) {
  std::array<uint8_t, 4> bytes;
  StoreBe32(bytes.data(), address);
  return IpAddress::V4(bytes.data());
}

}  // namespace braid::swarm
