// Inner packets of many clients: whole UDP datagrams over IPv4 from each one's own address, in turn
// or at random.
#pragma once

#include <cstdint>
#include <random>
#include <vector>

#include "base/address.h"
#include "base/bytes.h"

namespace braid::swarm {

enum class Pattern : uint8_t { kTurn, kRandom };

struct TrafficOptions {
  uint32_t active = 1;      // clients 0 … active-1
  uint32_t flows = 1;       // of each, told apart by the source port
  size_t inner_bytes = 64;  // of the whole inner packet
  Endpoint to;
  Pattern pattern = Pattern::kTurn;
};

inline constexpr size_t kMinTrafficBytes = 28;  // the two headers
inline constexpr size_t kMaxTrafficBytes = 1400;
inline constexpr uint32_t kMaxFlows = 40000;

class Traffic {
 public:
  explicit Traffic(const TrafficOptions& options);

  struct Packet {
    uint32_t client;
    Bytes bytes;  // valid until the next call
  };
  Packet Next();

 private:
  const TrafficOptions options_;
  std::vector<uint8_t> packet_;
  uint64_t fixed_sum_ = 0;  // of what the UDP checksum covers and no packet changes
  uint32_t next_client_ = 0;
  uint32_t next_flow_ = 0;
  std::minstd_rand random_{1};  // the same order in every run
};

}  // namespace braid::swarm
