// `braid bench crypto`: what each cipher and back-end seals and opens here, on one core and on all.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <barrier>
#include <iostream>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_format.h"
#include "base/clock.h"
#include "base/limits.h"
#include "cli/bench.h"
#include "cli/outcome.h"
#include "cli/text_layout.h"
#include "fastpath/aead.h"
#include "fastpath/wire.h"
#include "slowpath/cpu_topology.h"

namespace braid {
namespace {

// An inner packet that fills a datagram of an IPv4 link with jumbo frames.
constexpr size_t kJumboBytes = 9000 - 20 - 8 - kSealOverheadBytes;
constexpr size_t kPacketBytes[] = {64, 256, 512, 1420, kJumboBytes};
// Packets that are sealed one after the other and then opened, as a train is: they stay in cache.
constexpr size_t kTrainPackets = 16;

struct CryptoArguments {
  double seconds = 0.1;  // of each measurement
  bool json = false;
};

// What one thread has done.
struct CoreTally {
  uint64_t packets = 0;
  DurationNs seal_ns = 0;
  DurationNs open_ns = 0;
  bool authentic = true;
};

// Opening happens in place, so trains are sealed and opened in turn, each part on its own clock.
CoreTally SealAndOpen(const Aead& aead, size_t bytes, DurationNs time_ns) {
  PrepareAeadThread();
  AeadKey key;
  aead.expand(Key{1, 2, 3}, key);
  const std::array<uint8_t, kHeaderBytes> header{};
  const std::vector<uint8_t> plain(bytes, 7);
  const size_t stride = (bytes + kTagBytes + 63) / 64 * 64;
  std::vector<uint8_t> train(kTrainPackets * stride + kPacketTailroomBytes);
  CoreTally tally;
  uint64_t sequence = 0;
  const TimeNs end_ns = MonotonicNowNs() + time_ns;
  TimeNs now_ns = MonotonicNowNs();
  while (now_ns < end_ns) {
    for (size_t i = 0; i < kTrainPackets; ++i) {
      aead.seal(key, MakeNonce(0, 0, sequence + i), header, plain, train.data() + i * stride);
    }
    const TimeNs sealed_ns = MonotonicNowNs();
    for (size_t i = 0; i < kTrainPackets; ++i) {
      const MutableBytes sealed(train.data() + i * stride, bytes + kTagBytes);
      tally.authentic &= aead.open(key, MakeNonce(0, 0, sequence + i), header, sealed);
    }
    const TimeNs opened_ns = MonotonicNowNs();
    tally.seal_ns += sealed_ns - now_ns;
    tally.open_ns += opened_ns - sealed_ns;
    tally.packets += kTrainPackets;
    sequence += kTrainPackets;
    now_ns = opened_ns;
  }
  return tally;
}

CryptoFigure MeasureOn(const std::vector<int>& cpus, const Aead& aead, size_t bytes,
                       DurationNs time_ns) {
  std::vector<CoreTally> tallies(cpus.size());
  std::vector<std::thread> threads;
  std::barrier start(static_cast<ptrdiff_t>(cpus.size()));
  for (size_t i = 0; i < cpus.size(); ++i) {
    threads.emplace_back([&, i] {
      PinTo(cpus[i]);
      SealAndOpen(aead, bytes, time_ns / 10);  // wakes the core and the vector units
      start.arrive_and_wait();
      tallies[i] = SealAndOpen(aead, bytes, time_ns);
    });
  }
  for (std::thread& thread : threads) thread.join();

  CryptoFigure figure;
  figure.cipher = CipherName(aead.cipher);
  figure.backend = aead.backend;
  figure.bytes = bytes;
  figure.threads = static_cast<int>(cpus.size());
  for (const CoreTally& tally : tallies) {
    const auto packets = static_cast<double>(tally.packets);
    const double seal_ns = static_cast<double>(tally.seal_ns) / packets;
    const double open_ns = static_cast<double>(tally.open_ns) / packets;
    const auto cores = static_cast<double>(cpus.size());
    figure.seal_ns += seal_ns / cores;
    figure.open_ns += open_ns / cores;
    figure.seal_bytes_per_s += static_cast<double>(bytes) / seal_ns * 1e9;
    figure.open_bytes_per_s += static_cast<double>(bytes) / open_ns * 1e9;
  }
  return figure;
}

// What was decided, and from what.
CryptoChoice Explain(Cipher cipher, const Aead* chosen, const std::vector<CryptoFigure>& figures) {
  const auto available = AvailableAeads(cipher);
  std::vector<std::string> failed, slower;
  for (const auto& candidates : {IpsecMbAeads(), SodiumAeads()}) {
    for (const Aead* aead : candidates) {
      if (aead->cipher != cipher || aead == chosen) continue;
      const bool works = std::find(available.begin(), available.end(), aead) != available.end();
      (works ? slower : failed).emplace_back(aead->backend);
    }
  }
  CryptoChoice choice;
  choice.cipher = CipherName(cipher);
  if (chosen == nullptr) {
    choice.backend = "none";
    choice.why = "no back-end does it here in hardware, so peers agree on another cipher";
    return choice;
  }
  choice.backend = chosen->backend;
  choice.why = "first of those that pass the self-test";
  if (!slower.empty()) choice.why += ", ahead of " + Join(slower, ", ");
  if (!failed.empty()) choice.why += "; does not pass: " + Join(failed, ", ");
  if (IpsecMbAeads().empty()) choice.why += "; ipsec-mb has nothing for this machine";
  const auto seal_ns = [&](std::string_view backend) {
    for (const CryptoFigure& each : figures) {
      const bool is_it = each.cipher == choice.cipher && each.backend == backend &&
                         each.bytes == 1420 && each.threads == 1;
      if (is_it) return each.seal_ns;
    }
    return 0.0;
  };
  for (const std::string& other : slower) {
    choice.why += absl::StrFormat("; measured %.1f times as fast as %s",
                                  seal_ns(other) / seal_ns(choice.backend), other);
  }
  return choice;
}

int BenchCrypto(const CryptoArguments& arguments) {
  const auto suite = ChooseAeads("auto");
  if (!suite.ok()) return Fail("bench crypto", suite.status());
  const std::vector<int> cpus = AffinityOfThisProcess();
  std::vector<const Aead*> aeads;
  for (const Cipher cipher : {Cipher::kAes256Gcm, Cipher::kChaCha20Poly1305}) {
    for (const Aead* aead : AvailableAeads(cipher)) aeads.push_back(aead);
  }
  std::vector<std::vector<int>> placements = {{cpus.front()}};
  if (cpus.size() > 1) placements.push_back(cpus);
  const auto time_ns = static_cast<DurationNs>(arguments.seconds * 1e9);

  CryptoReport report;
  report.cpus = static_cast<int>(cpus.size());
  {
    BenchProgress progress(
        static_cast<int>(aeads.size() * std::size(kPacketBytes) * placements.size()));
    for (const Aead* aead : aeads) {
      for (const size_t bytes : kPacketBytes) {
        for (const std::vector<int>& on : placements) {
          progress.Step(absl::StrFormat("%s, %s, %d bytes on %d %s", CipherName(aead->cipher),
                                        aead->backend, bytes, on.size(),
                                        on.size() == 1 ? "core" : "cores"));
          report.figures.push_back(MeasureOn(on, *aead, bytes, time_ns));
        }
      }
    }
  }
  for (const Cipher cipher : {Cipher::kAes256Gcm, Cipher::kChaCha20Poly1305}) {
    report.choices.push_back(Explain(cipher, (*suite)[cipher], report.figures));
  }
  return PrintReport(report, arguments.json);
}

}  // namespace

void AddBenchCryptoCommand(CLI::App& bench, int& exit_code) {
  CLI::App* command = bench.add_subcommand(
      "crypto", "What each cipher and back-end does here, on one core and on all");
  const auto arguments = std::make_shared<CryptoArguments>();
  command->add_option("--seconds", arguments->seconds, "How long each measurement takes")
      ->check(Between(0.001, 60))
      ->type_name("SECONDS")
      ->capture_default_str();
  command->add_flag("--json", arguments->json, "Print JSON");
  command->callback([arguments, &exit_code] { exit_code = BenchCrypto(*arguments); });
}

}  // namespace braid
