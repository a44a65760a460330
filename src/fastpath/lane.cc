#include "fastpath/lane.h"

#include <algorithm>
#include <cstdlib>

namespace braid {
namespace {

// Sequences end long before the counter does.
constexpr uint64_t kMaxSequence = uint64_t{1} << 60;

}  // namespace

std::optional<Drop> LaneSender::Prepare(const Keypair& keypair, uint8_t lane, TimeNs now_ns) {
  left_ = 0;
  if (now_ns >= keypair.seal_until_ns || sequence_ >= kMaxSequence) return Drop::expired_key;
  // There is no way back to an earlier keypair, whose packets were counted already.
  if (keypair.id < keypair_id_) return Drop::expired_key;
  if (keypair.id != keypair_id_) {
    keypair_id_ = keypair.id;
    remote_index_ = keypair.remote_index;
    aead_ = keypair.aead;
    lane_ = lane;
    epoch_ = 0;
    confirmed_epoch_ = 0;
    sealed_in_epoch_ = 0;
    keypair.aead->expand(DeriveLaneKey(keypair.send_root, lane, 0), key_);
  } else if (sealed_in_epoch_ >= keypair.epoch_packets) {
    if (epoch_ > confirmed_epoch_) return Drop::keys_exhausted;
    ++epoch_;
    sealed_in_epoch_ = 0;
    keypair.aead->expand(DeriveLaneKey(keypair.send_root, lane, epoch_), key_);
  }
  left_ = keypair.epoch_packets - sealed_in_epoch_;
  return std::nullopt;
}

LaneSender::Sealed LaneSender::SealNumbered(uint64_t sequence, Kind kind, uint8_t path,
                                            uint8_t flags, Bytes plain, uint8_t* out) {
  if (sequence >= sequence_) std::abort();
  return SealAs(sequence, kind, path, flags, plain, out);
}

LaneSender::Sealed LaneSender::SealAs(uint64_t sequence, Kind kind, uint8_t path, uint8_t flags,
                                      Bytes plain, uint8_t* out) {
  if (left_ == 0 || (path & kPathIdMask) >= kMaxPaths) std::abort();
  --left_;
  ++sealed_in_epoch_;
  const uint32_t path_seq = path_seq_[path & kPathIdMask]++;
  WriteHeader(out, {kind, remote_index_, lane_, path, static_cast<uint8_t>(epoch_), flags, path_seq,
                    sequence});
  aead_->seal(key_, MakeNonce(path, lane_, sequence), {out, kHeaderBytes}, plain,
              out + kHeaderBytes);
  return {sequence, path_seq};
}

void LaneSender::ConfirmEpoch(uint32_t remote_index, uint32_t epoch) {
  if (keypair_id_ == 0 || remote_index_ != remote_index) return;
  if (epoch <= epoch_) confirmed_epoch_ = std::max(confirmed_epoch_, epoch);
}

std::optional<Drop> LaneReceiver::Open(const Keypair& keypair, const Header& header,
                                       MutableBytes datagram, TimeNs now_ns, Opened& opened,
                                       Duplicates duplicates) {
  if (now_ns >= keypair.open_until_ns || keypair.generation < generation_) {
    return Drop::expired_key;
  }
  if ((header.path & kPathIdMask) >= kMaxPaths) return Drop::bad_path;
  const std::optional<uint32_t> epoch = MatchEpoch(keypair, header.epoch);
  if (!epoch) return Drop::bad_epoch;
  const bool begins_anew = keypair.generation > generation_;
  opened.duplicate = !begins_anew && !window_.MayAccept(header.sequence);
  if (opened.duplicate && duplicates == Duplicates::kRefuse) return Drop::replayed;

  const Nonce nonce = MakeNonce(header.path, header.lane, header.sequence);
  const Bytes associated = datagram.first(kHeaderBytes);
  const MutableBytes sealed = datagram.subspan(kHeaderBytes);
  KeySlot* slot = FindKey(keypair.id, *epoch);
  opened.first_of_key = slot == nullptr;
  if (slot != nullptr) {
    if (!keypair.aead->open(slot->key, nonce, associated, sealed)) return Drop::unauthentic;
  } else {
    // A key takes a slot only once it has opened something, so that forgeries evict nothing.
    AeadKey key;
    keypair.aead->expand(DeriveLaneKey(keypair.receive_root, header.lane, *epoch), key);
    if (!keypair.aead->open(key, nonce, associated, sealed)) return Drop::unauthentic;
    if (begins_anew) BeginGeneration(keypair.generation);
    slot = &SlotToReplace();
    slot->keypair_id = keypair.id;
    slot->epoch = *epoch;
    slot->key = key;
  }
  slot->last_used = ++uses_;
  opened.newest = header.sequence >= window_.next();
  if (!opened.duplicate) window_.Accept(header.sequence);
  opened.path_advance = AdvancePath(header);

  NewestEpoch& newest = EpochOf(keypair.id);
  if (*epoch > newest.epoch) newest = {keypair.id, *epoch, 0};
  const uint64_t confirm_every =
      std::max<uint64_t>(keypair.epoch_packets / kConfirmEveryFraction, 1);
  opened.confirm_epoch =
      newest.epoch != 0 && *epoch == newest.epoch && newest.opened++ % confirm_every == 0;
  opened.epoch = newest.epoch;
  opened.plain = sealed.first(sealed.size() - kTagBytes);
  return std::nullopt;
}

std::optional<uint32_t> LaneReceiver::MatchEpoch(const Keypair& keypair, uint8_t low_bits) {
  uint32_t newest = 0;
  for (const NewestEpoch& known : newest_) {
    if (known.keypair_id == keypair.id) newest = known.epoch;
  }
  if (low_bits == static_cast<uint8_t>(newest)) return newest;
  if (low_bits == static_cast<uint8_t>(newest + 1)) return newest + 1;
  if (newest > 0 && low_bits == static_cast<uint8_t>(newest - 1)) return newest - 1;
  return std::nullopt;
}

LaneReceiver::KeySlot* LaneReceiver::FindKey(uint64_t keypair_id, uint32_t epoch) {
  for (KeySlot& slot : slots_) {
    if (slot.keypair_id == keypair_id && slot.epoch == epoch) return &slot;
  }
  return nullptr;
}

LaneReceiver::KeySlot& LaneReceiver::SlotToReplace() {
  return *std::min_element(slots_.begin(), slots_.end(), [](const KeySlot& a, const KeySlot& b) {
    return a.last_used < b.last_used;
  });
}

// Keypairs count up, so the smallest id is the oldest.
LaneReceiver::NewestEpoch& LaneReceiver::EpochOf(uint64_t keypair_id) {
  NewestEpoch* oldest = &newest_[0];
  for (NewestEpoch& known : newest_) {
    if (known.keypair_id == keypair_id) return known;
    if (known.keypair_id < oldest->keypair_id) oldest = &known;
  }
  *oldest = {keypair_id, 0, 0};
  return *oldest;
}

// The keys of earlier generations stay in their slots until they are replaced, but open nothing.
void LaneReceiver::BeginGeneration(uint64_t generation) {
  generation_ = generation;
  window_ = {};
  next_path_seq_ = {};
}

bool LaneReceiver::Recover(uint64_t generation, uint64_t sequence) {
  if (generation > generation_) BeginGeneration(generation);
  return window_.Accept(sequence);
}

uint32_t LaneReceiver::AdvancePath(const Header& header) {
  uint32_t& next = next_path_seq_[header.path & kPathIdMask];
  const uint32_t after = header.path_seq + 1;
  const uint32_t advance = next == 0 ? 1 : after - next;
  if (static_cast<int32_t>(advance) <= 0) return 0;
  next = after;
  return advance;
}

}  // namespace braid
