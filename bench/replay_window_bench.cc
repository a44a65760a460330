// The replay window as packets meet it: in order, reordered among paths, and with jumps.
#include <benchmark/benchmark.h>

#include "fastpath/replay_window.h"

namespace braid {
namespace {

void AcceptInOrder(benchmark::State& state) {
  ReplayWindow window;
  uint64_t sequence = 0;
  for (auto _ : state) {
    benchmark::DoNotOptimize(window.MayAccept(sequence));
    benchmark::DoNotOptimize(window.Accept(sequence));
    ++sequence;
  }
  state.SetItemsProcessed(static_cast<int64_t>(state.iterations()));
}

// Two paths, one of which is `distance` packets late.
void AcceptReordered(benchmark::State& state) {
  const auto distance = static_cast<uint64_t>(state.range(0));
  ReplayWindow window;
  uint64_t sequence = distance;
  for (auto _ : state) {
    const uint64_t next = sequence % 2 == 0 ? sequence : sequence - distance;
    benchmark::DoNotOptimize(window.MayAccept(next));
    benchmark::DoNotOptimize(window.Accept(next));
    ++sequence;
  }
  state.SetItemsProcessed(static_cast<int64_t>(state.iterations()));
}

void AcceptWithJumps(benchmark::State& state) {
  ReplayWindow window;
  uint64_t sequence = 0;
  for (auto _ : state) {
    sequence += static_cast<uint64_t>(state.range(0));
    benchmark::DoNotOptimize(window.Accept(sequence));
  }
  state.SetItemsProcessed(static_cast<int64_t>(state.iterations()));
}

void RefuseReplays(benchmark::State& state) {
  ReplayWindow window;
  for (uint64_t i = 0; i < ReplayWindow::kBits; ++i) window.Accept(i);
  uint64_t sequence = 0;
  for (auto _ : state) benchmark::DoNotOptimize(window.MayAccept(sequence++ % ReplayWindow::kBits));
  state.SetItemsProcessed(static_cast<int64_t>(state.iterations()));
}

BENCHMARK(AcceptInOrder);
BENCHMARK(AcceptReordered)->Arg(3)->Arg(1001);
BENCHMARK(AcceptWithJumps)->Arg(64)->Arg(4096)->Arg(100'000);
BENCHMARK(RefuseReplays);

}  // namespace
}  // namespace braid

BENCHMARK_MAIN();
