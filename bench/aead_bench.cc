// What one core seals and opens, for each cipher and back-end that this machine can run.
#include <benchmark/benchmark.h>

#include <string>
#include <vector>

#include "fastpath/aead.h"

namespace braid {
namespace {

struct Lane {
  explicit Lane(const Aead& aead) {
    PrepareAeadThread();
    aead.expand(Key{1, 2, 3}, key);
  }

  AeadKey key;
  std::array<uint8_t, kHeaderBytes> header{};
  uint64_t sequence = 0;
};

void Seal(benchmark::State& state, const Aead* aead) {
  Lane lane(*aead);
  const std::vector<uint8_t> plain(static_cast<size_t>(state.range(0)), 7);
  std::vector<uint8_t> sealed(plain.size() + kTagBytes);
  for (auto _ : state) {
    aead->seal(lane.key, MakeNonce(0, 0, lane.sequence++), lane.header, plain, sealed.data());
    benchmark::ClobberMemory();
  }
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations()) * state.range(0));
}

// Opening in place leaves plaintext behind, so every round begins with a copy of the sealed bytes.
void CopyAndOpen(benchmark::State& state, const Aead* aead) {
  Lane lane(*aead);
  const std::vector<uint8_t> plain(static_cast<size_t>(state.range(0)), 7);
  std::vector<uint8_t> sealed(plain.size() + kTagBytes);
  aead->seal(lane.key, MakeNonce(0, 0, 0), lane.header, plain, sealed.data());
  std::vector<uint8_t> datagram(sealed.size());
  for (auto _ : state) {
    std::copy(sealed.begin(), sealed.end(), datagram.begin());
    if (!aead->open(lane.key, MakeNonce(0, 0, 0), lane.header, datagram)) {
      return state.SkipWithError("does not open");
    }
    benchmark::ClobberMemory();
  }
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations()) * state.range(0));
}

// What a lane does once an epoch.
void DeriveAndExpand(benchmark::State& state, const Aead* aead) {
  PrepareAeadThread();
  uint32_t epoch = 0;
  AeadKey key;
  for (auto _ : state) {
    aead->expand(DeriveLaneKey(Key{}, 0, epoch++), key);
    benchmark::DoNotOptimize(key);
  }
}

[[maybe_unused]] const bool registered = [] {
  for (const Cipher cipher : {Cipher::kChaCha20Poly1305, Cipher::kAes256Gcm}) {
    for (const Aead* aead : AvailableAeads(cipher)) {
      const std::string name =
          "/" + std::string(CipherName(cipher)) + "/" + std::string(aead->backend);
      for (const int64_t bytes : {64, 576, 1420, 8900}) {
        benchmark::RegisterBenchmark(("Seal" + name).c_str(), Seal, aead)->Arg(bytes);
        benchmark::RegisterBenchmark(("CopyAndOpen" + name).c_str(), CopyAndOpen, aead)->Arg(bytes);
      }
      benchmark::RegisterBenchmark(("DeriveAndExpand" + name).c_str(), DeriveAndExpand, aead);
    }
  }
  return true;
}();

}  // namespace
}  // namespace braid

BENCHMARK_MAIN();
