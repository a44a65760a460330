#include "client.h"

#include <sodium.h>
#include <time.h>

#include <algorithm>
#include <array>
#include <utility>

#include "base/flow_hash.h"

namespace braid::swarm {
namespace {

// As docs/wire.md has them.
constexpr uint32_t kFeatureContinues = 1 << 0;
constexpr uint64_t kAesEpochPackets = uint64_t{1} << 23;
constexpr uint64_t kChaChaEpochPackets = uint64_t{1} << 48;
constexpr DurationNs kSealForNs = 180 * kSecondNs;
constexpr DurationNs kOpenForNs = 190 * kSecondNs;

constexpr uint8_t kPath = 0;
constexpr DurationNs kAttemptEveryNs = kSecondNs;
constexpr DurationNs kSlowAttemptEveryNs = 3 * kSecondNs;
constexpr int kQuickAttempts = 4;
constexpr uint32_t kAttemptJitterNs = 200 * kMillisecondNs;
constexpr DurationNs kPingTimeoutNs = 500 * kMillisecondNs;
constexpr int kPingsUntilHandshake = 3;

uint64_t next_keypair_id = 1;  // of this process, whose clients share one thread

uint64_t RandomToken() {
  uint64_t token;
  randombytes_buf(&token, sizeof(token));
  return token;
}

uint8_t OfferBit(Cipher cipher) { return static_cast<uint8_t>(1 << static_cast<int>(cipher)); }

}  // namespace

Client::Client(uint32_t number, size_t socket, const Identity& identity, PeerKeys server,
               const ClientSettings& settings, Outbox& outbox, Tally& tally)
    : number_(number),
      socket_(socket),
      identity_(identity),
      server_(std::move(server)),
      settings_(settings),
      outbox_(outbox),
      tally_(tally),
      stamper_(server_.public_key) {}

TimeNs Client::due_ns() const {
  TimeNs due_ns = UINT64_MAX;
  if (retry_ns_ != 0) due_ns = retry_ns_;
  if (current_ != nullptr) {
    if (next_ping_ns_ != 0) due_ns = std::min(due_ns, next_ping_ns_);
    if (!handshaking()) due_ns = std::min(due_ns, established_ns_ + settings_.rekey_after_ns);
    due_ns = std::min(due_ns, current_->seal_until_ns);
  }
  return due_ns;
}

void Client::OnTime(TimeNs now_ns) {
  if (current_ != nullptr && now_ns >= current_->seal_until_ns) {
    DropSession();
    ++tally_.lost;
    if (!handshaking()) return BeginHandshake(now_ns);
  }
  if (handshaking() && settings_.give_up_ns != 0 && now_ns >= began_ns_ + settings_.give_up_ns) {
    ++tally_.failed;
    return EndHandshake();
  }
  if (retry_ns_ != 0 && now_ns >= retry_ns_) {
    ++tally_.retries;
    // An unanswered mac2 may have been wrong for the server.
    if (attempt_had_cookie_) stamper_.DropCookie();
    SendInitiation(now_ns);
  }
  if (current_ == nullptr) return;
  if (!handshaking() && now_ns >= established_ns_ + settings_.rekey_after_ns) {
    BeginHandshake(now_ns);
  }
  if (next_ping_ns_ == 0 || now_ns < next_ping_ns_) return;
  if (ping_under_way_ && ++unanswered_pings_ == kPingsUntilHandshake) {
    ++tally_.lost;
    // What was begun and never confirmed goes on as one handshake.
    if (retry_ns_ == 0) {
      if (handshaking()) {
        SendInitiation(now_ns);
      } else {
        BeginHandshake(now_ns);
      }
    }
  }
  SendPing(now_ns);
}

// --- Handshake ---

void Client::BeginHandshake(TimeNs now_ns) {
  began_ns_ = now_ns;
  attempts_ = 0;
  SendInitiation(now_ns);
}

void Client::SendInitiation(TimeNs now_ns) {
  ++attempts_;
  const DurationNs pause = attempts_ < kQuickAttempts ? kAttemptEveryNs : kSlowAttemptEveryNs;
  retry_ns_ = now_ns + pause + randombytes_uniform(kAttemptJitterNs);
  auto attempt = InitiatorHandshake::Create(identity_, server_);
  if (!attempt.ok()) return;
  // Unlike a real client's the index is no secret: it tells whose datagram comes to a shared
  // socket.
  attempt_index_ = ++handshakes_ << kNumberBits | (number_ + 1);
  InitiationPayload payload;
  payload.sender_index = attempt_index_;
  payload.counter = NextCounter();
  payload.ciphers = 0;
  for (const Cipher cipher : settings_.ciphers) payload.ciphers |= OfferBit(cipher);
  payload.lanes = static_cast<uint8_t>(settings_.lanes);
  payload.mtu = settings_.mtu;
  payload.features = completed_once_ ? kFeatureContinues : 0;
  attempt_had_cookie_ = stamper_.HasCookie(now_ns);
  std::array<uint8_t, kInitiationBytes> datagram;
  const auto bytes = attempt->Write(kPath, payload, stamper_, now_ns, datagram);
  if (!bytes.ok()) return;
  attempt_ = *std::move(attempt);
  ++tally_.initiations;
  outbox_.Send(socket_, {datagram.data(), *bytes});
}

void Client::EndHandshake() {
  attempt_.reset();
  attempt_index_ = 0;
  began_ns_ = 0;
  retry_ns_ = 0;
}

bool Client::OnDatagram(MutableBytes datagram, TimeNs now_ns) {
  Header header;
  if (ReadHeader(datagram, header) != HeaderVerdict::kOk) {
    ++tally_.refused;
  } else if (header.kind == Kind::kResponse) {
    OnResponse(datagram, now_ns);
  } else if (header.kind == Kind::kCookie) {
    if (!attempt_ || !stamper_.ConsumeCookie(datagram, now_ns).ok()) return false;
    ++tally_.cookies;
    // A real client waits for its next tick; here what the server does is to be seen.
    attempt_had_cookie_ = false;
    SendInitiation(now_ns);
  } else if (IsSealed(header.kind)) {
    OnSealed(header, datagram, now_ns);
  } else {
    ++tally_.refused;
  }
  return true;
}

void Client::OnResponse(Bytes datagram, TimeNs now_ns) {
  if (!attempt_) {
    ++tally_.refused;
    return;
  }
  const auto result = attempt_->Read(datagram);
  if (!result.ok()) {
    ++tally_.refused;
    return;
  }
  const ResponsePayload& response = result->response;
  if ((response.features & kFeatureContinues) == 0) ++generation_;
  const Cipher cipher =
      response.cipher == kOfferAes256Gcm ? Cipher::kAes256Gcm : Cipher::kChaCha20Poly1305;
  auto keypair = std::make_unique<Keypair>();
  keypair->id = next_keypair_id++;
  keypair->local_index = attempt_index_;
  keypair->remote_index = response.sender_index;
  keypair->aead = settings_.aeads[cipher];
  keypair->send_root = result->roots.send;
  keypair->receive_root = result->roots.receive;
  keypair->generation = generation_;
  keypair->lanes = response.lanes;
  keypair->epoch_packets = cipher == Cipher::kAes256Gcm ? kAesEpochPackets : kChaChaEpochPackets;
  keypair->seal_until_ns = now_ns + kSealForNs;
  keypair->open_until_ns = now_ns + kOpenForNs;
  previous_ = std::move(current_);
  current_ = std::move(keypair);
  attempt_.reset();
  retry_ns_ = 0;
  confirmed_ = false;
  completed_once_ = true;
  established_ns_ = now_ns;
  unanswered_pings_ = 0;
  lanes_.resize(current_->lanes);
  // The server uses the new keys once it has seen something sealed under them.
  SendPing(now_ns);
}

uint64_t Client::NextCounter() {
  last_counter_ = std::max(last_counter_ + 1, WallNowNs());
  return last_counter_;
}

// --- Sealed ---

void Client::OnSealed(const Header& header, MutableBytes datagram, TimeNs now_ns) {
  const Keypair* keypair = nullptr;
  for (const auto* known : {&current_, &previous_}) {
    if (*known != nullptr && (*known)->local_index == header.session) keypair = known->get();
  }
  if (keypair == nullptr || (header.lane != kSlowLane && header.lane >= lanes_.size())) {
    ++tally_.refused;
    return;
  }
  Lane& lane = LaneOf(header.lane);
  LaneReceiver::Opened opened;
  if (lane.receiver.Open(*keypair, header, datagram, now_ns, opened)) {
    ++tally_.refused;
    return;
  }
  if (opened.confirm_epoch) {
    SendControl(lane, header.lane,
                {.type = ControlMessage::Type::kConfirmEpoch,
                 .session = header.session,
                 .epoch = opened.epoch},
                now_ns);
  }
  if (header.kind == Kind::kControl) OnControl(lane, header.lane, opened.plain, now_ns);
}

void Client::OnControl(Lane& lane, uint8_t lane_id, Bytes plain, TimeNs now_ns) {
  ControlMessage message;
  if (ReadControlMessage(plain, message) != ControlVerdict::kOk) return;
  switch (message.type) {
    case ControlMessage::Type::kPing:
      return SendControl(lane, lane_id, {ControlMessage::Type::kPong, message.token}, now_ns);
    case ControlMessage::Type::kPong:
      return OnPong(message.token, now_ns);
    case ControlMessage::Type::kConfirmEpoch:
      return lane.sender.ConfirmEpoch(message.session, message.epoch);
    case ControlMessage::Type::kHello:
    case ControlMessage::Type::kMode:
    case ControlMessage::Type::kPathGone:
    case ControlMessage::Type::kProbe:
    case ControlMessage::Type::kProbed:
      return;
    case ControlMessage::Type::kClose:
      ++tally_.closed_by_server;
      DropSession();
      if (!handshaking()) BeginHandshake(now_ns);
      return;
  }
}

void Client::OnPong(uint64_t token, TimeNs now_ns) {
  if (!ping_under_way_ || token != ping_token_) return;
  ping_under_way_ = false;
  unanswered_pings_ = 0;
  next_ping_ns_ = settings_.keepalive_ns == 0 ? 0 : now_ns + settings_.keepalive_ns;
  if (confirmed_) return;
  confirmed_ = true;
  if (!handshaking()) return;
  ++tally_.completed;
  tally_.latencies_ms.push_back(static_cast<float>(now_ns - began_ns_) / kMillisecondNs);
  EndHandshake();
}

void Client::SendPing(TimeNs now_ns) {
  ping_token_ = RandomToken();
  ping_under_way_ = true;
  next_ping_ns_ = now_ns + kPingTimeoutNs;
  SendControl(slow_, kSlowLane, {ControlMessage::Type::kPing, ping_token_}, now_ns);
}

void Client::SendControl(Lane& lane, uint8_t lane_id, const ControlMessage& message,
                         TimeNs now_ns) {
  if (current_ == nullptr || lane.sender.Prepare(*current_, lane_id, now_ns)) return;
  std::array<uint8_t, kMaxControlBytes> plain;
  const size_t bytes = WriteControlMessage(message, plain);
  lane.sender.Seal(Kind::kControl, kPath, 0, {plain.data(), bytes}, outbox_.Reserve());
  outbox_.Commit(socket_, bytes + kSealOverheadBytes);
}

bool Client::SendInner(Bytes packet, TimeNs now_ns) {
  if (!established()) return false;
  const auto lane_id = static_cast<uint8_t>(FlowHash(packet) % current_->lanes);
  Lane& lane = LaneOf(lane_id);
  if (lane.sender.Prepare(*current_, lane_id, now_ns)) return false;
  lane.sender.Seal(Kind::kData, kPath, 0, packet, outbox_.Reserve());
  outbox_.Commit(socket_, packet.size() + kSealOverheadBytes);
  return true;
}

void Client::Leave(TimeNs now_ns) {
  SendControl(slow_, kSlowLane, {ControlMessage::Type::kClose}, now_ns);
  EndHandshake();
  DropSession();
}

void Client::DropSession() {
  current_.reset();
  previous_.reset();
  confirmed_ = false;
  ping_under_way_ = false;
  next_ping_ns_ = 0;
}

Client::Lane& Client::LaneOf(uint8_t id) {
  if (id == kSlowLane) return slow_;
  if (lanes_[id] == nullptr) lanes_[id] = std::make_unique<Lane>();
  return *lanes_[id];
}

}  // namespace braid::swarm
