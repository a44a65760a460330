#include "slowpath/handshake_job.h"

#include <algorithm>
#include <utility>

namespace braid {

absl::Status PeerDirectory::Add(const Key& public_key, const Key& preshared_key) {
  auto keys = PeerKeys::Create(identity_, public_key, preshared_key);
  if (!keys.ok()) return keys.status();
  by_key_[public_key] = static_cast<PeerSlot>(keys_.size());
  keys_.push_back(*std::move(keys));
  return absl::OkStatus();
}

PeerSlot PeerDirectory::Find(const Key& public_key) const {
  const auto found = by_key_.find(public_key);
  return found == by_key_.end() ? kNoPeer : found->second;
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
                                 peer_ = directory_->Find(public_key);
                                 unknown_peer_ = peer_ == kNoPeer;
                                 if (unknown_peer_) return nullptr;
                                 return &directory_->KeysOf(peer_);
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
