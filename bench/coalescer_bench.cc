// Joining a batch of opened packets, as a coalesced read brings them: by number of flows, with
// partial checksums and with whole ones, which have to be verified.
#include <benchmark/benchmark.h>

#include <memory>

#include "fastpath/coalescer.h"
#include "support/packets.h"

namespace braid {
namespace {

using testing::Buffer;
using testing::PacketSpec;

constexpr size_t kPackets = 44;  // of 1460 bytes in a read of 64 KiB

struct Opened {
  Buffer memory;
  MutableBytes bytes;
  InnerPacket inner;
};

std::vector<Opened> MakeBatch(bool v6, uint8_t protocol, size_t flows) {
  std::vector<Opened> batch(kPackets);
  for (size_t i = 0; i < kPackets; ++i) {
    PacketSpec spec;
    spec.v6 = v6;
    spec.protocol = protocol;
    spec.payload.resize(1368, 7);
    spec.source_port = static_cast<uint16_t>(1000 + i % flows);
    spec.id = static_cast<uint16_t>(i / flows);
    spec.tcp_sequence = static_cast<uint32_t>(i / flows * spec.payload.size());
    batch[i].memory = testing::BehindVnetHeader({}, testing::BuildPacket(spec));
    batch[i].bytes = MutableBytes(batch[i].memory).subspan(kVnetHeaderBytes);
  }
  return batch;
}

void JoinBatch(benchmark::State& state, bool v6, uint8_t protocol, bool partial) {
  auto batch = MakeBatch(v6, protocol, static_cast<size_t>(state.range(0)));
  const std::vector<Opened> original = batch;
  const auto coalescer = std::make_unique<Coalescer>(Coalescer::Options{});
  size_t writes = 0;
  for (auto _ : state) {
    for (size_t i = 0; i < kPackets; ++i) {
      // Joining rewrites the headers of the first packet of a run.
      std::copy_n(original[i].memory.begin(), 100, batch[i].memory.begin());
      ParseInner(batch[i].bytes, batch[i].inner);
      coalescer->Add(batch[i].bytes, batch[i].inner, partial);
    }
    writes = coalescer->Finish(1).size();
    benchmark::ClobberMemory();
    coalescer->Clear();
  }
  state.counters["writes"] = static_cast<double>(writes);
  state.SetItemsProcessed(static_cast<int64_t>(state.iterations() * kPackets));
}

BENCHMARK_CAPTURE(JoinBatch, tcp_v4_partial, false, testing::kTcp, true)->Arg(1)->Arg(4)->Arg(44);
BENCHMARK_CAPTURE(JoinBatch, tcp_v4_whole, false, testing::kTcp, false)->Arg(1);
BENCHMARK_CAPTURE(JoinBatch, tcp_v6_partial, true, testing::kTcp, true)->Arg(1);
BENCHMARK_CAPTURE(JoinBatch, udp_v4_partial, false, testing::kUdp, true)->Arg(1);

}  // namespace
}  // namespace braid

BENCHMARK_MAIN();
