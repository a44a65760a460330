// A lane: an independent secure stream inside a session. Its sending half owns the counter and the
// current key, its receiving half the replay window and the keys of the epochs that may arrive.
// Each half belongs to one thread: the lane's worker, or the slow path for the slow lane.
//
// Both outlive keypairs: the counter goes on across handshakes, so the window does too.
#pragma once

#include <array>
#include <optional>

#include "base/address.h"
#include "base/counters.h"
#include "base/limits.h"
#include "fastpath/keypair.h"
#include "fastpath/replay_window.h"
#include "fastpath/wire.h"

namespace braid {

class LaneSender {
 public:
  // Makes `keypair` and the right epoch current. A drop reason when nothing may be sealed under it:
  // too old, used up, or the next epoch is not confirmed yet. Once per batch and after each
  // CanSeal() of false.
  std::optional<Drop> Prepare(const Keypair& keypair, uint8_t lane, TimeNs now_ns);

  // How many packets may be sealed before Prepare() is due again.
  uint64_t left() const { return left_; }

  // Writes header, ciphertext and tag at `out`: plain.size() + kSealOverheadBytes. `plain` is apart
  // from `out`. Aborts beyond the limits that Prepare() gave: a nonce must never come twice.
  struct Sealed {
    uint64_t sequence;
    uint32_t path_seq;
  };
  Sealed Seal(Kind kind, uint8_t path, uint8_t flags, Bytes plain, uint8_t* out) {
    return SealAs(sequence_++, kind, path, flags, plain, out);
  }
  // A sequence for a packet that is sealed later, or never.
  uint64_t TakeSequence() { return sequence_++; }
  // A packet that has its sequence: it was taken, or the packet was sealed before, over another
  // path or as another copy. `path` is a byte that this sequence was not sealed with before, since
  // both make the nonce.
  Sealed SealNumbered(uint64_t sequence, Kind kind, uint8_t path, uint8_t flags, Bytes plain,
                      uint8_t* out);

  // The peer has opened a packet of this epoch under the keypair whose remote index this is.
  void ConfirmEpoch(uint32_t remote_index, uint32_t epoch);

  uint64_t sequence() const { return sequence_; }

 private:
  Sealed SealAs(uint64_t sequence, Kind kind, uint8_t path, uint8_t flags, Bytes plain,
                uint8_t* out);

  // Of the current keypair, which itself may be gone before the lane is used again.
  uint64_t keypair_id_ = 0;
  uint32_t remote_index_ = 0;
  const Aead* aead_ = nullptr;
  uint64_t left_ = 0;  // until the next Prepare()
  uint64_t sealed_in_epoch_ = 0;
  uint64_t sequence_ = 0;  // of the next packet
  uint32_t epoch_ = 0;
  uint32_t confirmed_epoch_ = 0;
  uint8_t lane_ = 0;
  std::array<uint32_t, kMaxPaths> path_seq_{};
  AeadKey key_;
};

class LaneReceiver {
 public:
  struct Opened {
    MutableBytes plain;
    bool duplicate;     // it was opened before, maybe under another path or copy
    bool newest;        // no later sequence of this lane was opened before
    bool first_of_key;  // nothing was opened under this keypair and epoch before
    uint32_t
        path_advance;    // datagrams that the sender has sent on this path since the newest before
    bool confirm_epoch;  // tell the sender that `epoch` was opened
    uint32_t epoch;
  };

  // Opens `datagram` in place. Nothing changes unless it authenticates and is no replay.
  // `header` is what ReadHeader found in front of it. A keypair of a higher generation empties the
  // window; one of a lower generation opens nothing any more, or its packets could be replayed.
  // A bond's copies tell something of their path: with kOpen what came before opens too, as a
  // duplicate, if it is of this generation.
  enum class Duplicates : uint8_t { kRefuse, kOpen };
  std::optional<Drop> Open(const Keypair& keypair, const Header& header, MutableBytes datagram,
                           TimeNs now_ns, Opened& opened,
                           Duplicates duplicates = Duplicates::kRefuse);

  // A packet of a keypair of this generation was not opened, but made of others that were. False
  // when it was opened meanwhile, or is too old to tell.
  bool Recover(uint64_t generation, uint64_t sequence);

  // The next datagram that comes over this path is the first of another one.
  void ForgetPath(uint8_t path) { next_path_seq_[path] = 0; }

 private:
  struct KeySlot {
    uint64_t keypair_id = 0;  // 0: free
    uint32_t epoch = 0;
    uint64_t last_used = 0;
    AeadKey key;
  };
  struct NewestEpoch {
    uint64_t keypair_id = 0;
    uint32_t epoch = 0;
    uint64_t opened = 0;  // packets in it
  };

  std::optional<uint32_t> MatchEpoch(const Keypair& keypair, uint8_t low_bits);
  KeySlot* FindKey(uint64_t keypair_id, uint32_t epoch);
  KeySlot& SlotToReplace();
  NewestEpoch& EpochOf(uint64_t keypair_id);
  void BeginGeneration(uint64_t generation);
  uint32_t AdvancePath(const Header& header);

  uint64_t generation_ = 0;
  ReplayWindow window_;
  uint64_t uses_ = 0;
  std::array<NewestEpoch, 3> newest_{};              // previous, current, next keypair
  std::array<uint32_t, kMaxPaths> next_path_seq_{};  // 0: nothing came over the path yet
  std::array<KeySlot, 4> slots_;                     // one more for the epoch before
};

// A receiver tells of an epoch when it first opens a packet of it and again each so many packets,
// since what tells may be lost.
inline constexpr uint64_t kConfirmEveryFraction = 64;

}  // namespace braid
