// Any traffic of a few flows: what the coalescer writes comes apart into the packets that went in,
// those of each flow in their order.
#include <memory>
#include <vector>

#include "base/limits.h"
#include "fastpath/coalescer.h"
#include "support/fuzz_input.h"
#include "support/tun_side.h"

namespace braid {
namespace {

using testing::Buffer;
using testing::BuildPacket;
using testing::Check;
using testing::FuzzInput;
using testing::PacketSpec;

constexpr size_t kFlows = 4;

PacketSpec FirstOf(size_t flow) {
  PacketSpec spec;
  spec.v6 = flow % 2 == 1;
  spec.protocol = flow < 2 ? testing::kTcp : testing::kUdp;
  return spec;
}

// The next packet of a flow, which the input may change in one field.
PacketSpec Next(PacketSpec& flow, FuzzInput& input) {
  PacketSpec spec = flow;
  const size_t payload_bytes = input.Byte();
  spec.payload = input.Take(payload_bytes % 32);
  spec.payload.resize(payload_bytes);
  switch (input.Byte() % 24) {
    case 0:
      spec.tcp_sequence = input.Word();
      break;
    case 1:
      flow.tcp_sequence = input.Word();
      break;
    case 2:
      spec.tcp_acknowledgement = input.Byte();
      break;
    case 3:
      spec.tcp_flags = input.Byte();
      break;
    case 4:
      spec.tcp_options.resize(input.Byte() % 11 * 4, 1);
      break;
    case 5:
      spec.ip_options.resize(input.Byte() % 11 * 4, 1);
      break;
    case 6:
      flow.id = input.Word();
      break;
    case 7:
      flow.fragment_field = input.Byte() % 2 == 0 ? 0 : 0x4000;
      break;
    case 8:
      spec.fragment_field = input.Word();
      break;
    case 9:
      spec.extensions = {{testing::kFragment, Buffer(8)}};
      break;
    case 10:
      spec.extensions = {{testing::kDestinationOptions, testing::PaddingExtension()}};
      break;
    case 11:
      spec.ttl = input.Byte();
      break;
    case 12:
      spec.service = input.Byte();
      break;
    case 13:
      spec.flow_label = input.Byte();
      break;
    case 14:
      spec.source_port = input.Byte();
      break;
    case 15:
      spec.udp_without_checksum = spec.protocol == testing::kUdp;
      break;
    case 16:
      spec.protocol = input.Byte();
      break;
    case 17:
      spec.tcp_urgent = input.Byte();
      break;
    case 18:
      spec.tcp_reserved = input.Byte() & 0xf;
      break;
    default:
      break;
  }
  flow.tcp_sequence += static_cast<uint32_t>(payload_bytes);
  ++flow.id;
  return spec;
}

// The identification of packets that must not be fragmented may be counted up, and a checksum has
// two zeros; whether the checksums are right may not change.
struct Known {
  Buffer packet;
  bool ip_right;

  bool operator==(const Known&) const = default;
};

Known Normalized(Buffer packet) {
  InnerPacket inner;
  Check(ParseInner(packet, inner));
  const bool ip_right = inner.v6 || testing::Ipv4HeaderIsRight(packet);
  if (!inner.v6) {
    if ((LoadBe16(&packet[6]) & 0x4000) != 0) StoreBe16(&packet[4], 0);
    StoreBe16(&packet[10], 0);
  }
  if (inner.l4_header_bytes != 0) {
    uint8_t* checksum = &packet[size_t{inner.l4_offset} + inner.checksum_offset()];
    if (LoadBe16(checksum) == 0 && ChecksumIsValid(packet, inner)) StoreBe16(checksum, 0xffff);
  }
  return {std::move(packet), ip_right};
}

// Packets of one flow, in the coarsest sense: those between the same two addresses and, where they
// show them, ports.
bool MayOvertake(const Buffer& a, const Buffer& b) {
  InnerPacket of_a;
  InnerPacket of_b;
  Check(ParseInner(a, of_a) && ParseInner(b, of_b));
  if (InnerSource(a) != InnerSource(b) || InnerDestination(a) != InnerDestination(b)) return true;
  if (of_a.l4_header_bytes == 0 || of_b.l4_header_bytes == 0) return false;
  return of_a.protocol != of_b.protocol ||
         LoadBe32(&a[of_a.l4_offset]) != LoadBe32(&b[of_b.l4_offset]);
}

// Takes each packet out of `in`, past none that it must not overtake.
void CheckAgainst(std::vector<Known> in, const std::vector<Known>& out) {
  Check(in.size() == out.size());
  for (const Known& packet : out) {
    size_t at = 0;
    while (at < in.size() && in[at] != packet) {
      Check(MayOvertake(in[at].packet, packet.packet));
      ++at;
    }
    Check(at < in.size());
    in.erase(in.begin() + static_cast<ptrdiff_t>(at));
  }
}

void CheckWrites(Coalescer& coalescer, const std::vector<Known>& in) {
  std::vector<Known> out;
  const auto writes = coalescer.Finish(1);
  for (size_t i = 0; i < writes.size(); ++i) {
    const Buffer write = testing::Gathered(writes[i].parts);
    Check(write.size() <= kVnetHeaderBytes + kMaxInnerBytes);
    const auto packets = testing::PacketsOfWrite(write);
    Check(packets.size() == coalescer.PacketsIn(i));
    for (const Buffer& packet : packets) out.push_back(Normalized(packet));
  }
  CheckAgainst(in, out);
}

}  // namespace
}  // namespace braid

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace braid;
  constexpr size_t kMaxPackets = 200;
  FuzzInput input({data, size});
  static const auto coalescer = std::make_unique<Coalescer>(Coalescer::Options{});
  coalescer->Clear();
  std::vector<PacketSpec> flows;
  for (size_t flow = 0; flow < kFlows; ++flow) flows.push_back(FirstOf(flow));
  std::vector<std::unique_ptr<uint8_t[]>> borrowed;
  std::vector<Known> in;
  while (!input.empty() && in.size() < kMaxPackets) {
    const uint8_t choice = input.Byte();
    const PacketSpec spec = Next(flows[choice % kFlows], input);
    Buffer packet = BuildPacket(spec);
    if ((choice & 0xc0) == 0xc0 && !packet.empty())
      packet[input.Word() % packet.size()] ^= input.Byte();
    InnerPacket inner;
    if (!ParseInner(packet, inner)) continue;
    Buffer whole = packet;
    const bool partial = (choice & 0xc0) == 0x40 && inner.l4_header_bytes != 0;
    if (partial) {
      testing::MakePartial(spec, packet);
      whole = packet;
      testing::FinishPartial(spec, whole);
    }
    auto memory = std::make_unique<uint8_t[]>(kVnetHeaderBytes + packet.size());
    std::copy(packet.begin(), packet.end(), memory.get() + kVnetHeaderBytes);
    Check(coalescer->Add({memory.get() + kVnetHeaderBytes, packet.size()}, inner, partial));
    borrowed.push_back(std::move(memory));
    in.push_back(Normalized(whole));
  }
  CheckWrites(*coalescer, in);
  return 0;
}
