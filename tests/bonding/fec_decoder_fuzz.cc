// Any packets, parity and pauses: the decoder keeps within its memory, gives only what a packet can
// be, and leaves nothing behind.
#include "bonding/fec_decoder.h"
#include "support/fuzz_input.h"

namespace braid {
namespace {

constexpr size_t kSlots = 128;
constexpr size_t kPacketBytes = 64;

// As parity of a bond's lane that begins near a sequence; the input says the rest.
void MendHeader(testing::Buffer& plain) {
  if (plain.size() < kParityHeaderBytes) return;
  WriteParityHeader(plain.data(),
                    {.lane = static_cast<uint8_t>(kFirstBondLane + plain[0] % 2),
                     .row = static_cast<uint8_t>(plain[1] % (FecCode::kMaxParity + 1)),
                     .count = static_cast<uint8_t>(plain[2] % (FecCode::kMaxData + 2)),
                     .first = plain[8]});
}

}  // namespace
}  // namespace braid

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace braid;
  using testing::Check;
  static BondMemory memory(kSlots, kPacketBytes);
  FecDecoder decoder(memory, 1);
  testing::FuzzInput input({data, size});
  std::array<std::array<bool, 512>, 2> came{};
  TimeNs now_ns = kSecondNs;
  while (!input.empty()) {
    const uint8_t what = input.Byte();
    if (what % 4 == 0) {
      now_ns += what * kMillisecondNs;
      decoder.Look(now_ns);
    } else if (what % 4 == 1) {
      // As the replay window has it, each once.
      const uint8_t lane = input.Byte() % 2;
      const size_t sequence = input.Word() % came[lane].size();
      const testing::Buffer packet = input.Take(what / 3);
      if (came[lane][sequence]) continue;
      came[lane][sequence] = true;
      decoder.OnPacket(static_cast<uint8_t>(kFirstBondLane + lane), sequence, 0, packet, now_ns);
    } else {
      testing::Buffer plain = input.Take(kParityOverheadBytes + what / 3);
      if (what % 4 == 2) MendHeader(plain);
      decoder.OnParity(plain, now_ns);
    }
    for (SlotId id = decoder.TakeRecovered(); id != kNoSlot; id = decoder.TakeRecovered()) {
      const Slot& slot = memory.slab[id];
      Check(slot.bytes > 0 && slot.bytes <= kPacketBytes && IsBondLane(slot.lane));
      memory.slab.Return(id);
    }
    Check(memory.slab.used() <= memory.slab.capacity());
  }
  decoder.Clear();
  Check(memory.slab.used() == 0 && memory.kept.used() == 0);
  return 0;
}
