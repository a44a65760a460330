// What a limit costs a packet: the bucket that all workers take from, by one thread and by several
// at once, packet by packet as the packet path does it.
#include <benchmark/benchmark.h>

#include "base/token_bucket.h"

namespace braid {
namespace {

constexpr size_t kPacketBytes = 1420;
constexpr uint64_t kBytesPerS = 10'000'000'000 / 8;

void HasAndTake(benchmark::State& state) {
  static TokenBucket bucket(RateLimit::WithDefaultBurst(kBytesPerS));
  TimeNs now_ns = kSecondNs;
  for (auto _ : state) {
    benchmark::DoNotOptimize(bucket.Has(now_ns));
    bucket.Take(kPacketBytes, now_ns);
    now_ns += kPacketBytes * kSecondNs / kBytesPerS;
  }
  state.SetItemsProcessed(static_cast<int64_t>(state.iterations()));
}

BENCHMARK(HasAndTake)->ThreadRange(1, 4)->UseRealTime();

}  // namespace
}  // namespace braid
