// What forward error correction costs: a packet added to so many parity symbols, and so many lost
// packets made from as many.
#include <benchmark/benchmark.h>

#include <numeric>
#include <vector>

#include "bonding/fec_code.h"

namespace braid {
namespace {

constexpr size_t kBytes = 1400;

std::vector<std::vector<uint8_t>> Symbols(size_t count) {
  std::vector<std::vector<uint8_t>> symbols(count);
  uint8_t value = 0;
  for (auto& symbol : symbols) {
    symbol.resize(kBytes);
    for (uint8_t& byte : symbol) byte = value += 37;
  }
  return symbols;
}

std::vector<uint8_t*> PointersTo(std::vector<std::vector<uint8_t>>& symbols) {
  std::vector<uint8_t*> pointers;
  for (auto& symbol : symbols) pointers.push_back(symbol.data());
  return pointers;
}

void AddPacket(benchmark::State& state) {
  const FecCode code;
  auto parity = Symbols(static_cast<size_t>(state.range(0)));
  const auto to = PointersTo(parity);
  const auto packet = Symbols(1);
  size_t column = 0;
  for (auto _ : state) {
    code.Add(column, packet[0], to);
    benchmark::DoNotOptimize(parity[0].data());
    column = (column + 1) % FecCode::kMaxData;
  }
  state.SetItemsProcessed(static_cast<int64_t>(state.iterations()));
}

void SolveLost(benchmark::State& state) {
  const FecCode code;
  const auto lost = static_cast<size_t>(state.range(0));
  auto parity = Symbols(lost);
  auto data = Symbols(lost);
  std::vector<uint8_t> numbers(lost);
  std::iota(numbers.begin(), numbers.end(), uint8_t{0});
  for (auto _ : state) {
    code.Solve(numbers, numbers, kBytes, PointersTo(parity), PointersTo(data));
    benchmark::DoNotOptimize(data[0].data());
  }
  state.SetItemsProcessed(static_cast<int64_t>(state.iterations() * lost));
}

BENCHMARK(AddPacket)->Arg(1)->Arg(4)->Arg(8)->Arg(16);
BENCHMARK(SolveLost)->Arg(1)->Arg(4)->Arg(8);

}  // namespace
}  // namespace braid

BENCHMARK_MAIN();
