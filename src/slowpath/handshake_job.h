// The expensive part of answering an initiation, cut out of Peers so that any thread can do it. It
// has two stages, between which Peers decides on its own thread:
//
//   Peers: admits the initiation             ─► kRead   one key agreement: who is it?
//   Peers: replayed? which index and cipher? ─► kWrite  three agreements: response and keys
//   Peers: is it still wanted? then installs the keys and sends the response
//
// A job owns its inputs or shares what never changes: it may outlive Peers, which may take other
// datagrams meanwhile. It belongs to one thread at a time.
#pragma once

#include <array>
#include <memory>
#include <optional>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "fastpath/path_set.h"
#include "fastpath/route_table.h"
#include "slowpath/handshake.h"

namespace braid {

// Who this end is and whom it knows. Filled before the first job, then read by any thread; when
// peers come or go another takes its place.
class PeerDirectory {
 public:
  struct Entry {
    PeerSlot slot = kNoPeer;
    std::shared_ptr<const PeerKeys> keys;
  };

  explicit PeerDirectory(Identity identity) : identity_(std::move(identity)) {}

  void Add(PeerSlot slot, std::shared_ptr<const PeerKeys> keys);

  const Identity& identity() const { return identity_; }
  const Entry* Find(const Key& public_key) const;  // nullptr: unknown

 private:
  const Identity identity_;
  absl::flat_hash_map<Key, Entry> by_key_;
};

class HandshakeJob {
 public:
  enum class Stage : uint8_t { kRead, kWrite };

  // `initiation` has at most kMaxHandshakeBytes; what is longer is none. Its MACs were looked at.
  HandshakeJob(std::shared_ptr<const PeerDirectory> directory, Bytes initiation, const Route& back);

  Stage stage() const { return stage_; }
  // Does the stage's work.
  void Run();
  // Whether that came to something.
  bool ok() const { return ok_; }

  const Route& back() const { return back_; }
  // After kRead that came to nothing.
  bool unknown_peer() const { return unknown_peer_; }
  // After one that did: the slot, which may belong to another peer by now, and whose it was.
  PeerSlot peer() const { return entry_->slot; }
  const PeerKeys* keys() const { return entry_->keys.get(); }
  const InitiationPayload& initiation() const { return handshake_->initiation(); }
  uint8_t path_id() const { return handshake_->path_id() & kPathIdMask; }

  // What to answer with: on to kWrite.
  void Answer(const ResponsePayload& payload);
  const ResponsePayload& answer() const { return answer_; }
  // After kWrite.
  Bytes response() const { return {response_.data(), response_bytes_}; }
  const TransportRoots& roots() const { return roots_; }

 private:
  void Read();
  void Write();

  const std::shared_ptr<const PeerDirectory> directory_;
  const Route back_;
  Stage stage_ = Stage::kRead;
  bool ok_ = false;
  std::array<uint8_t, kMaxHandshakeBytes> initiation_;
  size_t initiation_bytes_;
  const PeerDirectory::Entry* entry_ = nullptr;  // of the directory
  bool unknown_peer_ = false;
  std::optional<ResponderHandshake> handshake_;
  ResponsePayload answer_;
  std::array<uint8_t, kResponseBytes> response_;
  size_t response_bytes_ = 0;
  TransportRoots roots_;
};

}  // namespace braid
