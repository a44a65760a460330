#include "slowpath/handshake_job.h"

#include <algorithm>
#include <utility>

namespace braid {

void PeerDirectory::Add(PeerSlot slot, std::shared_ptr<const PeerKeys> keys) {
  const Key& public_key = keys->public_key;
  by_key_[public_key] = {slot, std::move(keys)};
}

const PeerDirectory::Entry* PeerDirectory::Find(const Key& public_key) const {
  const auto found = by_key_.find(public_key);
  return found == by_key_.end() ? nullptr : &found->second;
}

HandshakeJob::HandshakeJob(std::shared_ptr<const PeerDirectory> directory, Bytes initiation,
                           const Route& back)
    : directory_(std::move(directory)), back_(back), initiation_bytes_(initiation.size()) {
  if (initiation.size() > initiation_.size()) initiation_bytes_ = 0;
  std::copy_n(initiation.begin(), initiation_bytes_, initiation_.begin());
}

void HandshakeJob::Run() {
  ok_ = false;
  if (stage_ == Stage::kRead) {
    Read();
  } else {
    Write();
  }
}

void HandshakeJob::Read() {
  auto handshake =
      ResponderHandshake::Read(directory_->identity(), {initiation_.data(), initiation_bytes_},
                               [this](const Key& public_key) -> const PeerKeys* {
                                 entry_ = directory_->Find(public_key);
                                 unknown_peer_ = entry_ == nullptr;
                                 return unknown_peer_ ? nullptr : entry_->keys.get();
                               });
  if (!handshake.ok()) return;
  handshake_ = *std::move(handshake);
  ok_ = true;
}

void HandshakeJob::Answer(const ResponsePayload& payload) {
  answer_ = payload;
  stage_ = Stage::kWrite;
}

void HandshakeJob::Write() {
  // An initiator asks nobody for a cookie, so its response never carries one, and time is nothing.
  MacStamper stamper(handshake_->peer_public_key());
  auto written = handshake_->Write(path_id(), answer_, stamper, 0, response_);
  if (!written.ok()) return;
  response_bytes_ = written->size;
  roots_ = written->roots;
  ok_ = true;
}

}  // namespace braid
