// Who is who in the swarm: every key pair follows from a seed and a number, so that nothing has to
// be stored and the server's configuration and the clients agree.
#pragma once

#include <cstdint>
#include <string>

#include "base/address.h"
#include "slowpath/handshake.h"

namespace braid::swarm {

// Client n owns the n-th address of this net; the server has its last one.
inline constexpr uint32_t kInnerNet = 10u << 24 | 64u << 16;
inline constexpr int kInnerNetBits = 10;
inline constexpr uint32_t kServerInner = kInnerNet + (1u << (32 - kInnerNetBits)) - 2;
inline constexpr uint32_t kMaxClients = 65535;

Identity ClientIdentity(const std::string& seed, uint32_t number);
Identity ServerIdentity(const std::string& seed);

inline uint32_t ClientInner(uint32_t number) { return kInnerNet + 1 + number; }
IpAddress V4(uint32_t address);

}  // namespace braid::swarm
