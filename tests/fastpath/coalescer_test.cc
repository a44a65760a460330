// Coalescing: what was joined comes apart again into the same packets bit for bit, in the order of
// each flow, and what must not be joined is not.
#include "fastpath/coalescer.h"

#include <gtest/gtest.h>

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/limits.h"
#include "support/packets.h"
#include "support/tun_side.h"

namespace braid::coalescer_test {
namespace {

using testing::Below;
using testing::Buffer;
using testing::BuildPacket;
using testing::kTransports;
using testing::PacketSpec;
using testing::PaddingExtension;
using testing::Random;
using testing::RandomBytes;
using testing::SpecOf;
using testing::Transport;

constexpr size_t kMaxParts = 64;
constexpr size_t kMaxRuns = 256;
constexpr size_t kPayloadBytes = 1000;  // where a test is not about it

// A coalescer, and the memory that it borrows: exactly the vnet header's room and the packet.
class Joiner {
 public:
  explicit Joiner(Coalescer::Options options = {})
      : coalescer_(std::make_unique<Coalescer>(options)) {}

  bool Add(const Buffer& packet, bool partial = false) {
    auto memory = std::make_unique<uint8_t[]>(kVnetHeaderBytes + packet.size());
    std::copy(packet.begin(), packet.end(), memory.get() + kVnetHeaderBytes);
    const MutableBytes bytes(memory.get() + kVnetHeaderBytes, packet.size());
    InnerPacket inner;
    EXPECT_TRUE(ParseInner(bytes, inner));
    if (!coalescer_->Add(bytes, inner, partial)) return false;
    borrowed_.push_back(std::move(memory));
    return true;
  }

  // Vnet header and packet of each write.
  std::vector<Buffer> Writes() {
    std::vector<Buffer> writes;
    size_t packets = 0;
    const std::span<WriteRequest> requests = coalescer_->Finish(17);
    for (size_t i = 0; i < requests.size(); ++i) {
      EXPECT_EQ(requests[i].fd, 17);
      EXPECT_EQ(requests[i].error, 0);
      EXPECT_LE(requests[i].parts.size(), kMaxParts);
      EXPECT_EQ(requests[i].parts.size(), coalescer_->PacketsIn(i));
      packets += coalescer_->PacketsIn(i);
      writes.push_back(testing::Gathered(requests[i].parts));
      EXPECT_LE(writes.back().size(), kVnetHeaderBytes + kMaxInnerBytes);
    }
    EXPECT_EQ(packets, borrowed_.size());
    coalescer_->Clear();
    EXPECT_TRUE(coalescer_->empty());
    borrowed_.clear();
    return writes;
  }

 private:
  std::unique_ptr<Coalescer> coalescer_;
  std::vector<std::unique_ptr<uint8_t[]>> borrowed_;
};

// How many packets each write has, and that they are `expected`, in this order.
std::vector<size_t> ExpectPackets(Joiner& joiner, const std::vector<Buffer>& expected) {
  std::vector<size_t> sizes;
  std::vector<Buffer> packets;
  for (const Buffer& write : joiner.Writes()) {
    const auto of_write = testing::PacketsOfWrite(write);
    sizes.push_back(of_write.size());
    packets.insert(packets.end(), of_write.begin(), of_write.end());
  }
  EXPECT_EQ(packets, expected);
  return sizes;
}

using Sizes = std::vector<size_t>;

// Adds whole packets and expects them back.
Sizes SizesOfWrites(const std::vector<Buffer>& packets) {
  Joiner joiner;
  for (const Buffer& packet : packets) EXPECT_TRUE(joiner.Add(packet));
  return ExpectPackets(joiner, packets);
}

// The packet that follows `spec` in its flow.
PacketSpec Following(PacketSpec spec) {
  ++spec.id;
  if (spec.protocol == testing::kTcp) {
    spec.tcp_sequence += static_cast<uint32_t>(spec.payload.size());
  }
  return spec;
}

std::vector<Buffer> Train(PacketSpec spec, size_t packets) {
  std::vector<Buffer> train;
  for (size_t i = 0; i < packets; ++i) {
    for (uint8_t& byte : spec.payload) byte = static_cast<uint8_t>(byte * 5 + i);
    train.push_back(BuildPacket(spec));
    spec = Following(spec);
  }
  return train;
}

TEST(Coalescer, JoinsATrainIntoTheSuperPacketItWasCutFrom) {
  Random random(1);
  for (const Transport& transport : kTransports) {
    PacketSpec super = SpecOf(transport.v6, transport.protocol, kPayloadBytes);
    super.tcp_flags = testing::kAck | testing::kPsh;
    super.payload = RandomBytes(random, 10'500);
    Buffer packet = BuildPacket(super);
    testing::MakePartial(super, packet);
    const Buffer from_tun = testing::BehindVnetHeader(testing::VnetFor(super, 1000), packet);

    for (const bool partial : {false, true}) {
      Joiner joiner;
      Buffer copy = from_tun;
      Segmenter segmenter;
      ASSERT_TRUE(segmenter.Begin(copy));
      for (MutableBytes next = segmenter.Next(); !next.empty(); next = segmenter.Next()) {
        Buffer segment(next.begin(), next.end());
        if (!partial) testing::FinishPartial(super, segment);
        EXPECT_TRUE(joiner.Add(segment, partial));
      }
      const auto writes = joiner.Writes();
      ASSERT_EQ(writes.size(), 1u);
      EXPECT_EQ(writes[0], from_tun);
    }
  }
}

TEST(Coalescer, JoinsBehindIpOptionsAndExtensionHeaders) {
  for (const Transport& transport : kTransports) {
    PacketSpec spec = SpecOf(transport.v6, transport.protocol, kPayloadBytes);
    spec.ip_options = {0x94, 4, 0, 0};
    spec.tcp_options = {1, 1, 8, 10, 0, 0, 0, 9, 0, 0, 0, 8};
    if (transport.v6) spec.extensions = {{testing::kDestinationOptions, PaddingExtension()}};
    EXPECT_EQ(SizesOfWrites(Train(spec, 5)), Sizes{5});
  }
}

struct Difference {
  const char* name;
  std::function<void(PacketSpec&)> make;
};

void ExpectUnjoined(const PacketSpec& spec, const Difference& difference) {
  PacketSpec next = Following(spec);
  difference.make(next);
  EXPECT_EQ(SizesOfWrites({BuildPacket(spec), BuildPacket(next)}), (Sizes{1, 1}))
      << difference.name;
}

TEST(Coalescer, JoinsNothingAcrossADifferenceOfIpHeaders) {
  for (const Transport& transport : kTransports) {
    const PacketSpec spec = SpecOf(transport.v6, transport.protocol, kPayloadBytes);
    std::vector<Difference> differences = {
        {"class of service", [](PacketSpec& next) { next.service ^= 0x20; }},
        {"congestion mark", [](PacketSpec& next) { next.service |= 3; }},
        {"time to live", [](PacketSpec& next) { --next.ttl; }},
        {"source", [](PacketSpec& next) { ++next.source_host; }},
        {"destination", [](PacketSpec& next) { ++next.destination_host; }},
        {"source port", [](PacketSpec& next) { ++next.source_port; }},
        {"destination port", [](PacketSpec& next) { ++next.destination_port; }},
    };
    if (transport.v6) {
      differences.push_back({"flow label", [](PacketSpec& next) { ++next.flow_label; }});
      differences.push_back(
          {"extension", [](PacketSpec& next) {
             next.extensions = {{testing::kDestinationOptions, PaddingExtension()}};
           }});
    } else {
      differences.push_back({"identification", [](PacketSpec& next) { next.id += 7; }});
      differences.push_back({"don't fragment", [](PacketSpec& next) { next.fragment_field = 0; }});
      differences.push_back({"options", [](PacketSpec& next) { next.ip_options = {1, 1, 1, 1}; }});
    }
    for (const Difference& difference : differences) ExpectUnjoined(spec, difference);
    EXPECT_EQ(SizesOfWrites(Train(spec, 2)), Sizes{2});
  }
}

TEST(Coalescer, JoinsNothingAcrossADifferenceOfOptionBytes) {
  for (const bool v6 : {false, true}) {
    PacketSpec spec = SpecOf(v6, testing::kUdp, kPayloadBytes);
    spec.ip_options = {0x94, 4, 0, 0};
    if (v6) spec.extensions = {{testing::kDestinationOptions, PaddingExtension()}};
    ExpectUnjoined(spec, {"option bytes", [](PacketSpec& next) {
                            next.ip_options[3] = 1;
                            if (next.v6) next.extensions[0].second[7] = 1;
                          }});
  }
}

TEST(Coalescer, JoinsNothingAcrossADifferenceOfTcpHeaders) {
  for (const bool v6 : {false, true}) {
    PacketSpec spec = SpecOf(v6, testing::kTcp, kPayloadBytes);
    spec.tcp_options = {1, 1, 8, 10, 0, 0, 0, 9, 0, 0, 0, 8};
    const Difference differences[] = {
        {"gap", [](PacketSpec& next) { ++next.tcp_sequence; }},
        {"overlap", [](PacketSpec& next) { --next.tcp_sequence; }},
        {"duplicate", [](PacketSpec& next) { next.tcp_sequence -= 1000; }},
        {"acknowledgement", [](PacketSpec& next) { ++next.tcp_acknowledgement; }},
        {"window", [](PacketSpec& next) { ++next.tcp_window; }},
        {"urgent pointer", [](PacketSpec& next) { ++next.tcp_urgent; }},
        {"reserved bits", [](PacketSpec& next) { next.tcp_reserved = 1; }},
        {"time stamp", [](PacketSpec& next) { ++next.tcp_options[7]; }},
        {"no options", [](PacketSpec& next) { next.tcp_options = {}; }},
        {"longer payload", [](PacketSpec& next) { next.payload.resize(1001); }},
        {"SYN", [](PacketSpec& next) { next.tcp_flags |= testing::kSyn; }},
        {"RST", [](PacketSpec& next) { next.tcp_flags |= testing::kRst; }},
        {"URG", [](PacketSpec& next) { next.tcp_flags |= testing::kUrg; }},
        {"ECE", [](PacketSpec& next) { next.tcp_flags |= testing::kEce; }},
        {"CWR", [](PacketSpec& next) { next.tcp_flags |= testing::kCwr; }},
        {"no ACK", [](PacketSpec& next) { next.tcp_flags = 0; }},
    };
    for (const Difference& difference : differences) ExpectUnjoined(spec, difference);
    EXPECT_EQ(SizesOfWrites(Train(spec, 3)), Sizes{3});
  }
}

TEST(Coalescer, NeverJoinsSynRstUrgOrCwrEvenWhenAllHaveThem) {
  for (const uint8_t flag : {testing::kSyn, testing::kRst, testing::kUrg, testing::kCwr}) {
    PacketSpec spec = SpecOf(false, testing::kTcp, kPayloadBytes);
    spec.tcp_flags |= flag;
    EXPECT_EQ(SizesOfWrites(Train(spec, 3)), (Sizes{1, 1, 1})) << int{flag};
  }
  PacketSpec spec = SpecOf(false, testing::kTcp, kPayloadBytes);
  spec.tcp_flags |= testing::kEce;
  EXPECT_EQ(SizesOfWrites(Train(spec, 3)), Sizes{3});
}

TEST(Coalescer, EndsARunWithPshOrFin) {
  for (const uint8_t flag : {testing::kPsh, testing::kFin}) {
    std::vector<Buffer> packets;
    PacketSpec spec = SpecOf(true, testing::kTcp, kPayloadBytes);
    for (int i = 0; i < 6; ++i) {
      spec.tcp_flags = i % 3 == 1 ? testing::kAck | flag : testing::kAck;
      packets.push_back(BuildPacket(spec));
      spec = Following(spec);
    }
    EXPECT_EQ(SizesOfWrites(packets), (Sizes{2, 3, 1}));
  }
}

TEST(Coalescer, EndsARunWithAShorterPacket) {
  for (const Transport& transport : kTransports) {
    std::vector<Buffer> packets;
    PacketSpec spec = SpecOf(transport.v6, transport.protocol, kPayloadBytes);
    for (const size_t bytes : {1000, 1000, 999, 999, 1000}) {
      spec.payload.resize(bytes);
      packets.push_back(BuildPacket(spec));
      spec = Following(spec);
    }
    EXPECT_EQ(SizesOfWrites(packets), (Sizes{3, 1, 1}));
  }
}

TEST(Coalescer, FollowsTheIdentificationAsTheKernelWritesIt) {
  PacketSpec spec = SpecOf(false, testing::kUdp, kPayloadBytes);
  spec.id = 0xfffe;
  spec.fragment_field = 0;
  EXPECT_EQ(SizesOfWrites(Train(spec, 5)), Sizes{5});
  // Standing still it says nothing when the packet must not be fragmented (RFC 6864), and is then
  // counted up; else it matters.
  for (const bool may_fragment : {false, true}) {
    spec.fragment_field = may_fragment ? 0 : 0x4000;
    Joiner joiner;
    for (int i = 0; i < 3; ++i) EXPECT_TRUE(joiner.Add(BuildPacket(spec)));
    EXPECT_EQ(joiner.Writes().size(), may_fragment ? 3u : 1u);
  }
}

TEST(Coalescer, HealsNoBrokenIpv4Header) {
  for (const uint8_t protocol : {testing::kTcp, testing::kUdp}) {
    for (int broken = 0; broken < 3; ++broken) {
      auto packets = Train(SpecOf(false, protocol, kPayloadBytes), 3);
      packets[static_cast<size_t>(broken)][10] ^= 0x10;
      Joiner joiner;
      for (const Buffer& packet : packets) EXPECT_TRUE(joiner.Add(packet, false));
      std::vector<Buffer> back;
      for (const Buffer& write : joiner.Writes()) {
        const auto of_write = testing::PacketsOfWrite(write);
        back.insert(back.end(), of_write.begin(), of_write.end());
      }
      EXPECT_EQ(back, packets);
    }
  }
}

TEST(Coalescer, JoinsWholeChecksumsOnlyWhenTheyAreRight) {
  for (const Transport& transport : kTransports) {
    for (size_t broken = 0; broken < 4; ++broken) {
      auto packets = Train(SpecOf(transport.v6, transport.protocol, kPayloadBytes), 4);
      packets[broken].back() ^= 1;
      const Sizes expected[] = {{1, 3}, {1, 1, 2}, {2, 1, 1}, {3, 1}};
      EXPECT_EQ(SizesOfWrites(packets), expected[broken]) << broken;
    }
  }
}

TEST(Coalescer, MixesWholeAndPartialChecksums) {
  for (const Transport& transport : kTransports) {
    const PacketSpec spec = SpecOf(transport.v6, transport.protocol, kPayloadBytes);
    for (int pattern = 0; pattern < 8; ++pattern) {
      const auto whole = Train(spec, 3);
      Joiner joiner;
      for (size_t i = 0; i < whole.size(); ++i) {
        const bool partial = (pattern >> i & 1) != 0;
        Buffer packet = whole[i];
        if (partial) testing::MakePartial(spec, packet);
        EXPECT_TRUE(joiner.Add(packet, partial));
      }
      EXPECT_EQ(ExpectPackets(joiner, whole), Sizes{3}) << pattern;
    }
  }
}

TEST(Coalescer, LeavesASinglePartialChecksumToTheKernel) {
  for (const Transport& transport : kTransports) {
    const PacketSpec spec = SpecOf(transport.v6, transport.protocol, kPayloadBytes);
    Buffer packet = BuildPacket(spec);
    testing::MakePartial(spec, packet);
    Joiner joiner;
    EXPECT_TRUE(joiner.Add(packet, true));
    const auto writes = joiner.Writes();
    ASSERT_EQ(writes.size(), 1u);
    const auto vnet = LoadNative<VnetHeader>(writes[0].data());
    EXPECT_EQ(vnet.flags, VnetHeader::kNeedsChecksum);
    EXPECT_EQ(vnet.gso_type, VnetHeader::kGsoNone);
    EXPECT_EQ(vnet.checksum_start, spec.l4_offset());
    EXPECT_EQ(vnet.checksum_offset, spec.checksum_offset());
    EXPECT_EQ(Buffer(writes[0].begin() + kVnetHeaderBytes, writes[0].end()), packet);
  }
}

TEST(Coalescer, LeavesUdpWithoutAChecksumWithoutOne) {
  for (const bool v6 : {false, true}) {
    PacketSpec spec = SpecOf(v6, testing::kUdp, kPayloadBytes);
    spec.udp_without_checksum = true;
    EXPECT_EQ(SizesOfWrites(Train(spec, 3)), (Sizes{1, 1, 1}));
    // Nor does one in the middle of others.
    auto packets = Train(SpecOf(v6, testing::kUdp, kPayloadBytes), 3);
    StoreBe16(&packets[1][spec.l4_offset() + 6], 0);
    EXPECT_EQ(SizesOfWrites(packets), (Sizes{1, 1, 1}));
  }
}

TEST(Coalescer, JoinsOnlyWhatTheDeviceTakes) {
  const auto tcp = Train(SpecOf(false, testing::kTcp, kPayloadBytes), 2);
  const auto udp = Train(SpecOf(false, testing::kUdp, kPayloadBytes), 2);
  for (const bool takes_tcp : {false, true}) {
    for (const bool takes_udp : {false, true}) {
      Joiner joiner({takes_tcp, takes_udp});
      for (const Buffer& packet : tcp) EXPECT_TRUE(joiner.Add(packet));
      for (const Buffer& packet : udp) EXPECT_TRUE(joiner.Add(packet));
      EXPECT_EQ(joiner.Writes().size(), (takes_tcp ? 1u : 2u) + (takes_udp ? 1u : 2u));
    }
  }
}

TEST(Coalescer, JoinsInterleavedFlowsEachIntoItsOwn) {
  for (const Transport& transport : kTransports) {
    PacketSpec first = SpecOf(transport.v6, transport.protocol, kPayloadBytes);
    PacketSpec second = first;
    ++second.source_port;
    const auto a = Train(first, 4);
    const auto b = Train(second, 4);
    Joiner joiner;
    for (size_t i = 0; i < 4; ++i) {
      EXPECT_TRUE(joiner.Add(a[i]));
      EXPECT_TRUE(joiner.Add(b[i]));
    }
    std::vector<Buffer> expected = a;
    expected.insert(expected.end(), b.begin(), b.end());
    EXPECT_EQ(ExpectPackets(joiner, expected), (Sizes{4, 4}));
  }
}

TEST(Coalescer, KeepsAPureAcknowledgementInItsPlace) {
  PacketSpec spec = SpecOf(false, testing::kTcp, kPayloadBytes);
  auto packets = Train(spec, 3);
  PacketSpec ack = spec;
  ack.payload.clear();
  packets.insert(packets.begin() + 1, BuildPacket(ack));
  EXPECT_EQ(SizesOfWrites(packets), (Sizes{1, 1, 2}));
}

TEST(Coalescer, LetsNothingBetweenTheSameTwoOvertakeAFragment) {
  for (const Transport& transport : kTransports) {
    PacketSpec fragment = SpecOf(transport.v6, transport.protocol, kPayloadBytes);
    fragment.fragment_field = 0x2000;
    if (transport.v6) fragment.extensions = {{testing::kFragment, Buffer(8)}};
    auto packets = Train(SpecOf(transport.v6, transport.protocol, kPayloadBytes), 4);
    packets.insert(packets.begin() + 2, BuildPacket(fragment));
    EXPECT_EQ(SizesOfWrites(packets), (Sizes{2, 1, 2}));
    // Between two others it holds up nobody.
    ++fragment.source_host;
    packets[2] = BuildPacket(fragment);
    Joiner joiner;
    for (const Buffer& packet : packets) EXPECT_TRUE(joiner.Add(packet));
    EXPECT_EQ(joiner.Writes().size(), 2u);
  }
}

TEST(Coalescer, LetsNothingOvertakeWhatHasNoPorts) {
  PacketSpec icmp = SpecOf(false, 1, 64);
  auto packets = Train(SpecOf(false, testing::kTcp, kPayloadBytes), 4);
  packets.insert(packets.begin() + 1, BuildPacket(icmp));
  EXPECT_EQ(SizesOfWrites(packets), (Sizes{1, 1, 3}));
}

TEST(Coalescer, StopsAtTheLargestPacketThereIs) {
  for (const Transport& transport : kTransports) {
    PacketSpec spec = SpecOf(transport.v6, transport.protocol, 1400);
    const size_t fit = (kMaxJoinedBytes - spec.headers_bytes()) / 1400;
    EXPECT_EQ(SizesOfWrites(Train(spec, fit + 3)), (Sizes{fit, 3}));
    // To the byte.
    spec.payload.resize((kMaxJoinedBytes - spec.headers_bytes()) / 5);
    EXPECT_EQ(SizesOfWrites(Train(spec, 5)), Sizes{5});
    spec.payload.resize(spec.payload.size() + 1);
    EXPECT_EQ(SizesOfWrites(Train(spec, 5)), (Sizes{4, 1}));
  }
}

TEST(Coalescer, StopsAtItsLargestNumberOfParts) {
  for (const Transport& transport : kTransports) {
    EXPECT_EQ(
        SizesOfWrites(Train(SpecOf(transport.v6, transport.protocol, 100), kMaxParts * 2 + 1)),
        (Sizes{kMaxParts, kMaxParts, 1}));
  }
}

TEST(Coalescer, SaysWhenItIsFull) {
  Joiner joiner;
  std::vector<Buffer> packets;
  for (size_t i = 0; i < kMaxRuns; ++i) {
    PacketSpec spec = SpecOf(false, testing::kUdp, 50);
    spec.source_port = static_cast<uint16_t>(1000 + i);
    packets.push_back(BuildPacket(spec));
    ASSERT_TRUE(joiner.Add(packets.back()));
  }
  EXPECT_FALSE(joiner.Add(packets.back()));
  EXPECT_EQ(ExpectPackets(joiner, packets), Sizes(kMaxRuns, 1));
  EXPECT_TRUE(joiner.Add(packets.back()));
  EXPECT_EQ(joiner.Writes().size(), 1u);
}

TEST(Coalescer, ForgetsOpenRunsWhenCleared) {
  const auto train = Train(SpecOf(false, testing::kTcp, kPayloadBytes), 2);
  Joiner joiner;
  EXPECT_TRUE(joiner.Add(train[0]));
  EXPECT_EQ(ExpectPackets(joiner, {train[0]}), Sizes{1});
  EXPECT_TRUE(joiner.Add(train[1]));
  EXPECT_EQ(ExpectPackets(joiner, {train[1]}), Sizes{1});
}

// Traffic as it comes and as it should not: many flows, whose packets come in any order, twice, not
// at all, changed, broken, whole or in fragments.
class RandomTraffic {
 public:
  explicit RandomTraffic(uint64_t seed) : random_(seed) {
    for (size_t i = 0; i < 12; ++i) {
      PacketSpec spec =
          SpecOf(i % 2 == 0, i % 4 < 2 ? testing::kTcp : testing::kUdp, kPayloadBytes);
      spec.source_host = static_cast<uint8_t>(1 + i % 3);
      spec.source_port = static_cast<uint16_t>(5000 + i / 4);
      spec.tcp_sequence = static_cast<uint32_t>(random_());
      spec.id = static_cast<uint16_t>(random_());
      spec.fragment_field = i % 3 == 0 ? 0 : 0x4000;
      spec.payload.resize(1 + Below(random_, 1400));
      if (i % 5 == 0) spec.tcp_options.resize(12, 1);
      flows_.push_back(spec);
    }
  }

  struct Item {
    Buffer packet;  // as it is handed over
    Buffer whole;   // as it must come out
    bool partial;
  };

  Item Next() {
    if (Below(random_, 8) == 0) flow_ = Below(random_, flows_.size());
    PacketSpec& flow = flows_[flow_];
    for (uint8_t& byte : flow.payload) byte = static_cast<uint8_t>(random_());
    PacketSpec spec = flow;
    Change(spec);
    flow = Following(flow);
    return Finished(spec);
  }

 private:
  void Change(PacketSpec& spec) {
    PacketSpec& flow = flows_[flow_];
    switch (Below(random_, 40)) {
      case 0:
        spec.tcp_sequence -= 1000;
        break;
      case 1:
        flow.tcp_sequence += 1;
        break;
      case 2:
        flow.tcp_acknowledgement += 100;
        break;
      case 3:
        flow.tcp_window += 1;
        break;
      case 4:
        spec.ttl -= 1;
        break;
      case 5:
        spec.service ^= 1;
        break;
      case 6:
        flow.flow_label ^= 1;
        break;
      case 7:
        flow.id += 3;
        break;
      case 8:
        spec.tcp_flags |= testing::kPsh;
        break;
      case 9:
        spec.tcp_flags = static_cast<uint8_t>(random_());
        break;
      case 10:
        spec.payload.resize(Below(random_, spec.payload.size() + 1));
        break;
      case 11:
        spec.payload.push_back(1);
        break;
      case 12:
        spec.udp_without_checksum = spec.protocol == testing::kUdp;
        break;
      case 13:
        spec.tcp_urgent = 1;
        break;
      case 14:
        spec.fragment_field = 0x2000;
        if (spec.v6) spec.extensions = {{testing::kFragment, Buffer(8)}};
        break;
      case 15:
        spec.tcp_options.resize(spec.tcp_options.size() == 12 ? 0 : 12, 1);
        break;
      case 16:
        flow.payload.resize(1 + Below(random_, 1400));
        break;
      default:
        break;
    }
  }

  Item Finished(const PacketSpec& spec) {
    Item item{BuildPacket(spec), {}, false};
    const bool fragment = (spec.fragment_field & 0x3fff) != 0;
    if (Below(random_, 30) == 0) {
      // Broken behind the IP headers, where the lengths are not.
      const size_t at = spec.l4_offset() + spec.checksum_offset() + Below(random_, 2);
      item.packet[at] ^= static_cast<uint8_t>(1 + Below(random_, 255));
    } else if (Below(random_, 2) == 0 && !fragment && !spec.udp_without_checksum) {
      item.whole = item.packet;
      item.partial = true;
      testing::MakePartial(spec, item.packet);
      return item;
    }
    item.whole = item.packet;
    return item;
  }

  Random random_;
  std::vector<PacketSpec> flows_;
  size_t flow_ = 0;
};

// Between which two addresses, and which ports; fragments belong to all flows between two
// addresses.
std::string Addresses(const Buffer& packet) {
  return packet[0] >> 4 == 6 ? std::string(packet.begin() + 8, packet.begin() + 40)
                             : std::string(packet.begin() + 12, packet.begin() + 20);
}

std::string FlowOf(const Buffer& packet) {
  InnerPacket inner;
  EXPECT_TRUE(ParseInner(packet, inner));
  if (inner.l4_header_bytes == 0) return Addresses(packet);
  const auto ports = packet.begin() + inner.l4_offset;
  return Addresses(packet) + static_cast<char>(inner.protocol) + std::string(ports, ports + 4);
}

// Each flow's packets in order, together with the portless ones between its addresses.
std::map<std::string, std::vector<Buffer>> ByFlow(const std::vector<Buffer>& packets) {
  std::map<std::string, std::vector<Buffer>> flows;
  for (const Buffer& packet : packets) flows[FlowOf(packet)];
  for (const Buffer& packet : packets) {
    const std::string flow = FlowOf(packet);
    const bool portless = flow == Addresses(packet);
    for (auto& [name, of_flow] : flows) {
      if (name == flow || (portless && name.starts_with(flow))) of_flow.push_back(packet);
    }
  }
  return flows;
}

TEST(Coalescer, GivesBackRandomTrafficBitForBitAndFlowByFlowInOrder) {
  size_t packets_in = 0;
  size_t writes_out = 0;
  for (uint64_t seed = 0; seed < 150; ++seed) {
    RandomTraffic traffic(seed);
    Joiner joiner;
    std::vector<Buffer> in;
    std::vector<Buffer> out;
    const auto flush = [&] {
      for (const Buffer& write : joiner.Writes()) {
        ++writes_out;
        for (Buffer& packet : testing::PacketsOfWrite(write)) out.push_back(std::move(packet));
      }
    };
    for (int i = 0; i < 400; ++i) {
      const RandomTraffic::Item item = traffic.Next();
      in.push_back(item.whole);
      if (!joiner.Add(item.packet, item.partial)) {
        flush();
        ASSERT_TRUE(joiner.Add(item.packet, item.partial));
      }
    }
    flush();
    packets_in += in.size();
    ASSERT_EQ(in.size(), out.size());
    ASSERT_EQ(ByFlow(in), ByFlow(out)) << "seed " << seed;
  }
  EXPECT_LT(writes_out * 3, packets_in * 2);  // it did join
}

}  // namespace
}  // namespace braid::coalescer_test
