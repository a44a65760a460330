// Cutting a 64 KiB super-packet: what its headers cost, without the seal that reads the payload.
#include <benchmark/benchmark.h>

#include "fastpath/segmenter.h"
#include "support/packets.h"

namespace braid {
namespace {

using testing::Buffer;
using testing::PacketSpec;

void CutSuperPacket(benchmark::State& state, bool v6, uint8_t protocol) {
  PacketSpec spec;
  spec.v6 = v6;
  spec.protocol = protocol;
  if (protocol == testing::kTcp) spec.tcp_options.resize(12, 1);
  spec.payload.resize(65535 - spec.headers_bytes());
  const auto gso_bytes = static_cast<size_t>(state.range(0));
  const Buffer from_tun =
      testing::BehindVnetHeader(testing::VnetFor(spec, gso_bytes), testing::BuildPacket(spec));
  const size_t headers_bytes = kVnetHeaderBytes + spec.headers_bytes();
  Buffer buffer = from_tun;
  Segmenter segmenter;
  int64_t segments = 0;
  for (auto _ : state) {
    // Cutting writes headers over payload, but these only are read again.
    std::copy_n(from_tun.begin(), headers_bytes, buffer.begin());
    if (!segmenter.Begin(buffer)) return state.SkipWithError("does not begin");
    for (MutableBytes next = segmenter.Next(); !next.empty(); next = segmenter.Next()) {
      benchmark::DoNotOptimize(next.data());
      ++segments;
    }
  }
  state.SetItemsProcessed(segments);
}

void PassPacket(benchmark::State& state) {
  PacketSpec spec;
  spec.payload.resize(static_cast<size_t>(state.range(0)));
  Buffer buffer = testing::BehindVnetHeader(testing::VnetFor(spec), testing::BuildPacket(spec));
  Segmenter segmenter;
  for (auto _ : state) {
    benchmark::DoNotOptimize(segmenter.Begin(buffer));
    benchmark::DoNotOptimize(segmenter.Next().data());
  }
  state.SetItemsProcessed(static_cast<int64_t>(state.iterations()));
}

BENCHMARK_CAPTURE(CutSuperPacket, tcp_v4, false, testing::kTcp)->Arg(536)->Arg(1368)->Arg(8900);
BENCHMARK_CAPTURE(CutSuperPacket, tcp_v6, true, testing::kTcp)->Arg(1348);
BENCHMARK_CAPTURE(CutSuperPacket, udp_v4, false, testing::kUdp)->Arg(1392);
BENCHMARK(PassPacket)->Arg(0)->Arg(1368);

}  // namespace
}  // namespace braid

BENCHMARK_MAIN();
