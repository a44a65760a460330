#include "traffic.h"

#include <algorithm>

#include "fastpath/inner_packet.h"
#include "identities.h"

namespace braid::swarm {
namespace {

constexpr size_t kIpBytes = 20;
constexpr size_t kUdpBytes = 8;
constexpr uint16_t kFirstPort = 20000;
static_assert(kFirstPort + kMaxFlows <= UINT16_MAX);

}  // namespace

Traffic::Traffic(const TrafficOptions& options) : options_(options), packet_(options.inner_bytes) {
  uint8_t* ip = packet_.data();
  ip[0] = 0x45;
  StoreBe16(ip + 2, static_cast<uint16_t>(packet_.size()));
  StoreBe16(ip + 6, 0x4000);  // not to be fragmented
  ip[8] = 64;
  ip[9] = kProtocolUdp;
  std::copy_n(options.to.address.bytes.begin(), 4, ip + 16);
  uint8_t* udp = ip + kIpBytes;
  const auto udp_bytes = static_cast<uint16_t>(packet_.size() - kIpBytes);
  StoreBe16(udp + 2, options.to.port);
  StoreBe16(udp + 4, udp_bytes);
  for (size_t i = kIpBytes + kUdpBytes; i < packet_.size(); ++i) {
    packet_[i] = static_cast<uint8_t>(i * 31);
  }
  const Bytes all(packet_);
  fixed_sum_ = ChecksumAdd(all.subspan(kIpBytes)) + ChecksumAdd(all.subspan(16, 4)) +
               __builtin_bswap16(kProtocolUdp) + __builtin_bswap16(udp_bytes);
}

Traffic::Packet Traffic::Next() {
  const uint32_t client = next_client_;
  const uint32_t flow = next_flow_;
  if (options_.pattern == Pattern::kRandom) {
    next_client_ = static_cast<uint32_t>(random_()) % options_.active;
    next_flow_ = static_cast<uint32_t>(random_()) % options_.flows;
  } else if (++next_client_ == options_.active) {
    next_client_ = 0;
    if (++next_flow_ == options_.flows) next_flow_ = 0;
  }
  uint8_t* ip = packet_.data();
  uint8_t* udp = ip + kIpBytes;
  StoreBe32(ip + 12, ClientInner(client));
  SetIpv4HeaderChecksum(ip);
  StoreBe16(udp, static_cast<uint16_t>(kFirstPort + flow));
  const uint64_t sum = ChecksumAdd({ip + 12, 4}, ChecksumAdd({udp, 2}, fixed_sum_));
  const auto checksum = static_cast<uint16_t>(~ChecksumFold(sum));
  StoreBe16(udp + 6, checksum == 0 ? 0xffff : checksum);
  return {client, packet_};
}

}  // namespace braid::swarm
