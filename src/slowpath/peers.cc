#include "slowpath/peers.h"

#include <sodium.h>
#include <time.h>

#include <algorithm>
#include <utility>

#include "absl/status/status.h"
#include "fastpath/header_drop.h"

namespace braid {
namespace {

// In a handshake's features: the sender's counters go on from an earlier session of this process.
// Without it they begin anew, and so do the receiver's windows.
constexpr uint32_t kFeatureContinues = 1 << 0;

// SP 800-38D's bound for random-looking nonces is far above; this keeps the advantage of an
// attacker who sees everything below 2^-60 a key (RFC 9001, appendix B, for packets of this size).
constexpr uint64_t kAesEpochPackets = uint64_t{1} << 23;
constexpr uint64_t kChaChaEpochPackets = uint64_t{1} << 48;

constexpr DurationNs kAttemptEveryNs = kSecondNs;
constexpr DurationNs kSlowAttemptEveryNs = 3 * kSecondNs;
constexpr int kQuickAttempts = 4;  // then a round trip may take three seconds
constexpr DurationNs kAttemptJitterNs = 200 * kMillisecondNs;

// A ping not answered for so long, or three round trips, is sent again; after a few the other end
// is taken to have lost the session.
constexpr DurationNs kPingTimeoutNs = 500 * kMillisecondNs;
constexpr int kPingsUntilHandshake = 3;
constexpr double kRttWeight = 0.125;

// When a peer is due.
constexpr TimeNs kEveryTick = 1;
constexpr TimeNs kNever = UINT64_MAX;

// A server goes over to another path when the one in use was silent so long and the other was not.
constexpr DurationNs kServerPathSilenceNs = 5 * kSecondNs;

uint64_t RandomToken() {
  uint64_t token;
  randombytes_buf(&token, sizeof(token));
  return token;
}

uint8_t OfferBit(Cipher cipher) { return static_cast<uint8_t>(1 << static_cast<int>(cipher)); }

static_assert(kOfferChaCha20Poly1305 == 1 << static_cast<int>(Cipher::kChaCha20Poly1305));
static_assert(kOfferAes256Gcm == 1 << static_cast<int>(Cipher::kAes256Gcm));

DurationNs PingTimeout(const PeerPath& path) {
  const double three_rtts_ns = path.rtt_ms.value_or(0) * 3 * kMillisecondNs;
  return std::max(kPingTimeoutNs, static_cast<DurationNs>(three_rtts_ns));
}

}  // namespace

Peers::Peers(PeersOptions options, PeerHost& host)
    : options_(std::move(options)),
      host_(host),
      cookies_(options_.identity.public_key),
      directory_(std::make_shared<PeerDirectory>(options_.identity)) {}

Peers::~Peers() = default;

absl::Status Peers::Add(const PeerConfig& config, const Key& preshared_key,
                        std::vector<PeerPath> paths) {
  if (!directory_->Add(config.public_key, preshared_key).ok()) {
    return absl::InvalidArgumentError("peer \"" + config.name + "\": public_key is no usable key");
  }
  auto peer = std::make_unique<Peer>();
  peer->slot = static_cast<PeerSlot>(peers_.size());
  peer->name = config.name;
  peer->keys = &directory_->KeysOf(peer->slot);
  peer->keepalive_ns = static_cast<DurationNs>(config.keepalive_ms) * kMillisecondNs;
  peer->initiates = !paths.empty();
  peer->paths = std::move(paths);
  for (PeerPath& path : peer->paths) path.stamper.emplace(config.public_key);
  peers_.push_back(std::move(peer));
  Schedule(*peers_.back());
  return absl::OkStatus();
}

void Peers::SetPathRoute(PeerSlot slot, uint8_t path_id, const Route& route, TimeNs now_ns) {
  Peer& peer = *peers_[slot];
  if (peer.paths[path_id].route == route) return;
  peer.paths[path_id].source.Forget();
  MoveTo(peer, path_id, route, now_ns);
  if (!peer.established() && peer.initiates) peer.next_attempt_ns = now_ns;
}

bool Peers::WantsResolving(const Peer& peer) {
  return peer.initiates && (peer.attempts > 0 || !peer.established());
}

// --- Datagrams ---

bool Peers::OnDatagram(MutableBytes datagram, const Route& back, TimeNs now_ns) {
  if (closed_) return false;
  Header header;
  if (const HeaderVerdict verdict = ReadHeader(datagram, header); verdict != HeaderVerdict::kOk) {
    drops_.Count(DropOf(verdict));
    return false;
  }
  if (IsSealed(header.kind)) {
    if (header.lane != kSlowLane) return true;
    OnSealed(header, datagram, back, now_ns);
  } else if (header.kind == Kind::kInitiation) {
    OnInitiation(datagram, back, now_ns);
  } else if (header.kind == Kind::kResponse) {
    OnResponse(datagram, back, now_ns);
  } else {
    OnCookie(datagram, now_ns);
  }
  return false;
}

void Peers::OnEvent(const Event& event, TimeNs now_ns) {
  if (closed_ || event.peer >= peers_.size()) return;
  Peer& peer = *peers_[event.peer];
  switch (event.type) {
    case Event::Type::kNeedHandshake: {
      // What a worker asked for may have come about in the meantime.
      const bool has_keys = peer.established() && now_ns < peer.current->seal_until_ns;
      if (peer.initiates && !has_keys && peer.next_attempt_ns == 0) peer.next_attempt_ns = now_ns;
      break;
    }
    case Event::Type::kOpened:
      if (peer.next != nullptr && peer.next->id == event.keypair_id) PromoteNext(peer, now_ns);
      break;
    case Event::Type::kPeerClosed:
      OnClose(peer, event.keypair_id);
      break;
    case Event::Type::kNone:
    case Event::Type::kDatagram:
      break;
  }
}

// --- Initiating ---

void Peers::StartAttempt(Peer& peer, TimeNs now_ns) {
  EndAttempt(peer);
  // An unanswered mac2 may have been wrong for the other end, so the next goes without.
  if (peer.attempt_had_cookie) peer.paths[peer.attempt_path].stamper->DropCookie();

  // Each attempt takes the next path that leads anywhere.
  size_t path_id = peer.attempt_path + (peer.retry_same_path ? 0u : 1u);
  if (peer.attempts == 0) path_id = peer.active_path;
  peer.retry_same_path = false;
  for (size_t tried = 0; tried < peer.paths.size(); ++tried, ++path_id) {
    if (peer.paths[path_id % peer.paths.size()].route.remote.is_set()) break;
  }
  peer.attempt_path = static_cast<uint8_t>(path_id % peer.paths.size());
  ++peer.attempts;
  const DurationNs pause = peer.attempts < kQuickAttempts ? kAttemptEveryNs : kSlowAttemptEveryNs;
  peer.next_attempt_ns = now_ns + pause + randombytes_uniform(kAttemptJitterNs);

  PeerPath& path = peer.paths[peer.attempt_path];
  if (!path.route.remote.is_set()) return;
  auto attempt = InitiatorHandshake::Create(options_.identity, *peer.keys);
  if (!attempt.ok()) return;
  InitiationPayload payload;
  payload.sender_index = FreshIndex();
  payload.counter = host_.NextHandshakeCounter();
  payload.ciphers = OfferedCiphers();
  payload.lanes = static_cast<uint8_t>(options_.lanes);
  payload.mtu = options_.mtu;
  payload.features = peer.completed_once ? kFeatureContinues : 0;
  peer.attempt_had_cookie = path.stamper->HasCookie(now_ns);
  std::array<uint8_t, kInitiationBytes> datagram;
  const auto bytes = attempt->Write(peer.attempt_path, payload, *path.stamper, now_ns, datagram);
  if (!bytes.ok()) return;
  peer.attempt = *std::move(attempt);
  peer.attempt_index = payload.sender_index;
  by_index_[peer.attempt_index] = {&peer, nullptr};
  host_.SendDatagram(path.route, {datagram.data(), *bytes});
}

void Peers::EndAttempt(Peer& peer) {
  if (peer.attempt) by_index_.erase(peer.attempt_index);
  peer.attempt.reset();
}

void Peers::OnResponse(Bytes datagram, const Route& back, TimeNs now_ns) {
  const auto header = ReadHandshakeHeader(datagram, Kind::kResponse);
  if (!header || datagram.size() < kResponseBytes) {
    return drops_.Count(Drop::handshake_malformed);
  }
  const auto found = by_index_.find(header->session);
  if (found == by_index_.end() || found->second.keypair != nullptr) {
    return drops_.Count(Drop::handshake_unexpected);
  }
  Peer& peer = *found->second.peer;
  if (cookies_.Admit(datagram, back.remote, false, now_ns) != Admission::kAdmitted) {
    return drops_.Count(Drop::handshake_bad_mac);
  }
  auto result = peer.attempt->Read(datagram);
  if (!result.ok()) return drops_.Count(Drop::handshake_unauthentic);

  const ResponsePayload& response = result->response;
  EndAttempt(peer);
  auto keypair =
      MakeKeypair(peer, result->roots, peer.attempt_index, response.sender_index, response.cipher,
                  response.lanes, (response.features & kFeatureContinues) != 0, now_ns);
  peer.attempt_had_cookie = false;
  peer.attempts = 0;
  peer.next_attempt_ns = 0;
  const bool first = !peer.established();
  Withdraw(peer, peer.previous);
  Withdraw(peer, peer.next);
  peer.previous = std::move(peer.current);
  peer.current = std::move(keypair);
  peer.mtu = AgreedMtu(response.mtu);
  peer.initiated_current = true;
  peer.confirmed_current = false;
  peer.completed_once = true;
  Announce(peer, *peer.current);
  if (first) peer.active_path = peer.attempt_path;
  UseForSending(peer, now_ns);
  for (PeerPath& path : peer.paths) path.unanswered_pings = 0;
  // The other end does not use the new keys before it has seen something sealed under them.
  SendPing(peer, peer.attempt_path, now_ns);
  if (first) {
    host_.Report("peer \"" + peer.name + "\": session established over path \"" +
                 peer.paths[peer.attempt_path].name + "\" with " +
                 std::string(CipherName(peer.current->aead->cipher)));
  }
}

void Peers::OnCookie(Bytes datagram, TimeNs now_ns) {
  // A server has no attempts, but may have many peers to look for one at.
  if (options_.role == Role::kServer) return drops_.Count(Drop::handshake_unexpected);
  for (auto& peer : peers_) {
    if (!peer->attempt) continue;
    PeerPath& path = peer->paths[peer->attempt_path];
    if (!path.stamper->ConsumeCookie(datagram, now_ns).ok()) continue;
    // Once with the cookie, soon: the other end is under load, but waits for this.
    peer->next_attempt_ns = std::min(peer->next_attempt_ns, now_ns + kTickNs);
    peer->retry_same_path = true;
    peer->attempt_had_cookie = false;
    return;
  }
  drops_.Count(Drop::handshake_unexpected);
}

// --- Responding ---

void Peers::OnInitiation(Bytes datagram, const Route& back, TimeNs now_ns) {
  if (datagram.size() < kInitiationBytes || !ReadHandshakeHeader(datagram, Kind::kInitiation)) {
    return drops_.Count(Drop::handshake_malformed);
  }
  switch (cookies_.Admit(datagram, back.remote, flood_.UnderLoad(now_ns), now_ns)) {
    case Admission::kRefused:
      return drops_.Count(Drop::handshake_bad_mac);
    case Admission::kNeedsCookie: {
      flood_.OnInitiation(now_ns);
      std::array<uint8_t, kCookieReplyBytes> reply;
      const auto bytes = cookies_.WriteCookie(datagram, back.remote, now_ns, reply);
      if (bytes.ok()) host_.SendDatagram(back, {reply.data(), *bytes});
      return drops_.Count(Drop::handshake_rate_limited);
    }
    case Admission::kAdmitted:
      break;
  }
  flood_.OnInitiation(now_ns);
  if (flood_.UnderLoad(now_ns) && !flood_.Allow(back.remote, now_ns)) {
    return drops_.Count(Drop::handshake_rate_limited);
  }

  if (jobs_under_way_ >= kMaxHandshakeJobs) return drops_.Count(Drop::handshakes_busy);
  ++jobs_under_way_;
  host_.RunJob(std::make_unique<HandshakeJob>(directory_, datagram, back));
}

void Peers::OnJobDone(std::unique_ptr<HandshakeJob> job, TimeNs now_ns) {
  if (!closed_) {
    if (job->stage() == HandshakeJob::Stage::kWrite) {
      InstallNext(*job, now_ns);
    } else if (DecideAnswer(*job)) {
      return host_.RunJob(std::move(job));
    }
  }
  --jobs_under_way_;
}

bool Peers::DecideAnswer(HandshakeJob& job) {
  const auto refuse = [this](Drop reason) {
    drops_.Count(reason);
    return false;
  };
  if (!job.ok()) {
    return refuse(job.unknown_peer() ? Drop::handshake_unknown_peer : Drop::handshake_unauthentic);
  }
  Peer& peer = *peers_[job.peer()];
  const InitiationPayload& initiation = job.initiation();
  if (initiation.counter <= peer.greatest_counter) return refuse(Drop::handshake_replayed);
  // Where this end initiates, it alone does.
  if (peer.initiates || job.path_id() >= kMaxPaths) return refuse(Drop::handshake_unexpected);
  peer.greatest_counter = initiation.counter;
  job.Answer({.sender_index = FreshIndex(),
              .cipher = PickCipher(initiation.ciphers),
              .lanes = static_cast<uint8_t>(std::min<int>(options_.lanes, initiation.lanes)),
              .mtu = options_.mtu,
              .features = peer.completed_once ? kFeatureContinues : 0});
  return true;
}

void Peers::InstallNext(const HandshakeJob& job, TimeNs now_ns) {
  if (!job.ok()) return drops_.Count(Drop::handshake_unauthentic);
  Peer& peer = *peers_[job.peer()];
  const InitiationPayload& initiation = job.initiation();
  const ResponsePayload& answer = job.answer();
  // Since it was decided on, the peer may have begun anew: it waits for another response then.
  if (initiation.counter < peer.greatest_counter) return drops_.Count(Drop::handshake_replayed);
  // The same index may have been drawn for another handshake: one in four billion has to try again.
  if (by_index_.contains(answer.sender_index)) return drops_.Count(Drop::handshakes_busy);
  PathOf(peer, job.path_id());
  Withdraw(peer, peer.next);
  peer.next =
      MakeKeypair(peer, job.roots(), answer.sender_index, initiation.sender_index, answer.cipher,
                  answer.lanes, (initiation.features & kFeatureContinues) != 0, now_ns);
  peer.mtu = AgreedMtu(initiation.mtu);
  peer.initiation_route = job.back();
  peer.initiation_path = job.path_id();
  Announce(peer, *peer.next);
  host_.SendDatagram(job.back(), job.response());
}

// The peer has used the new keys: it has our response, so it receives where the initiation came
// from, and holds the preshared key.
void Peers::PromoteNext(Peer& peer, TimeNs now_ns) {
  // Of this peer, or of its present process: which paths it has now only this handshake has shown.
  const bool first = !peer.established() || peer.next->generation != peer.current->generation;
  Withdraw(peer, peer.previous);
  peer.previous = std::move(peer.current);
  peer.current = std::move(peer.next);
  peer.initiated_current = false;
  peer.confirmed_current = true;
  peer.completed_once = true;
  PeerPath& path = PathOf(peer, peer.initiation_path);
  path.up = true;
  path.heard_ns = now_ns;
  if (!(path.route == peer.initiation_route)) {
    path.source.Forget();
    MoveTo(peer, peer.initiation_path, peer.initiation_route, now_ns);
  }
  if (first) peer.active_path = peer.initiation_path;
  UseForSending(peer, now_ns);
  Schedule(peer);
  if (first) {
    host_.Report("peer \"" + peer.name + "\": session established from " +
                 path.route.remote.ToString() + " with " +
                 std::string(CipherName(peer.current->aead->cipher)));
  }
}

// --- Keys ---

std::unique_ptr<const Keypair> Peers::MakeKeypair(Peer& peer, const TransportRoots& roots,
                                                  uint32_t local_index, uint32_t remote_index,
                                                  uint8_t cipher_bit, uint8_t lanes, bool continues,
                                                  TimeNs now_ns) {
  if (!continues) ++peer.generation;
  const Cipher cipher =
      cipher_bit == kOfferAes256Gcm ? Cipher::kAes256Gcm : Cipher::kChaCha20Poly1305;
  auto keypair = std::make_unique<Keypair>();
  keypair->id = next_keypair_id_++;
  keypair->local_index = local_index;
  keypair->remote_index = remote_index;
  keypair->aead = options_.aeads[cipher];
  keypair->send_root = roots.send;
  keypair->receive_root = roots.receive;
  keypair->generation = peer.generation;
  keypair->lanes = lanes;
  keypair->epoch_packets = cipher == Cipher::kAes256Gcm ? kAesEpochPackets : kChaChaEpochPackets;
  keypair->seal_until_ns = now_ns + kSealUntilNs;
  keypair->open_until_ns = now_ns + kOpenUntilNs;
  return keypair;
}

void Peers::Announce(Peer& peer, const Keypair& keypair) {
  by_index_[keypair.local_index] = {&peer, &keypair};
  Schedule(peer);
  host_.Tell({.type = Command::Type::kAddKeypair, .peer = peer.slot, .keypair = &keypair});
}

void Peers::Withdraw(Peer& peer, std::unique_ptr<const Keypair>& keypair) {
  if (keypair == nullptr) return;
  by_index_.erase(keypair->local_index);
  host_.Tell({.type = Command::Type::kRemoveKeypair, .peer = peer.slot, .keypair = keypair.get()});
  host_.Retire(std::move(keypair));
}

void Peers::UseForSending(Peer& peer, TimeNs now_ns) {
  peer.established_ns = now_ns;
  peer.packets_at_handshake = host_.ActivityOf(peer.slot).tx_packets;
  host_.Tell({.type = Command::Type::kSendUnder,
              .peer = peer.slot,
              .keypair = peer.current.get(),
              .mtu = peer.mtu});
  host_.Tell({.type = Command::Type::kUsePath, .peer = peer.slot, .path = peer.active_path});
  host_.OnSessionMtu(peer.slot, peer.mtu);
}

void Peers::DropSession(Peer& peer, const char* why) {
  if (!peer.established() && peer.next == nullptr) return;
  if (peer.established()) host_.Report("peer \"" + peer.name + "\": session ended: " + why);
  Withdraw(peer, peer.previous);
  Withdraw(peer, peer.current);
  Withdraw(peer, peer.next);
  for (PeerPath& path : peer.paths) {
    path.up = false;
    path.pings.Forget();
    path.ping_under_way = false;
    path.unanswered_pings = 0;
  }
}

uint32_t Peers::FreshIndex() {
  uint32_t index = 0;
  while (index == 0 || by_index_.contains(index)) index = randombytes_random();
  return index;
}

uint8_t Peers::OfferedCiphers() const {
  uint8_t offered = 0;
  for (const Cipher cipher : options_.ciphers) {
    if (options_.aeads[cipher] != nullptr) offered |= OfferBit(cipher);
  }
  return offered;
}

// Everyone has ChaCha20-Poly1305, so there is always one.
uint8_t Peers::PickCipher(uint8_t offered) const {
  for (const Cipher cipher : options_.ciphers) {
    if (options_.aeads[cipher] != nullptr && (offered & OfferBit(cipher)) != 0) {
      return OfferBit(cipher);
    }
  }
  return kOfferChaCha20Poly1305;
}

uint16_t Peers::AgreedMtu(uint16_t theirs) const {
  return std::max<uint16_t>(std::min(options_.mtu, theirs), kMinMtu);
}

// --- The slow lane ---

void Peers::OnSealed(const Header& header, MutableBytes datagram, const Route& back,
                     TimeNs now_ns) {
  const auto found = by_index_.find(header.session);
  if (found == by_index_.end() || found->second.keypair == nullptr) {
    return drops_.Count(Drop::unknown_session);
  }
  Peer& peer = *found->second.peer;
  const Keypair& keypair = *found->second.keypair;
  LaneReceiver::Opened opened;
  if (const auto drop = peer.receiver.Open(keypair, header, datagram, now_ns, opened)) {
    return drops_.Count(*drop);
  }
  if (&keypair == peer.next.get()) PromoteNext(peer, now_ns);
  const auto path_id = static_cast<uint8_t>(header.path & kPathIdMask);
  if (peer.initiates && path_id >= peer.paths.size()) return drops_.Count(Drop::bad_path);
  PeerPath& path = PathOf(peer, path_id);
  path.heard_ns = now_ns;
  if (&keypair == peer.current.get()) peer.confirmed_current = true;
  if (opened.newest) {
    const IpAddress proven = path.route.remote.address;
    if (path.source.OnNewest(back, proven, now_ns, RandomToken)) {
      SendControl(peer, path_id, back, {ControlMessage::Type::kPing, path.source.token()}, now_ns);
    }
    if (path.source.current().remote.is_set()) MoveTo(peer, path_id, path.source.current(), now_ns);
  }
  if (header.kind == Kind::kControl) {
    OnControl(peer, path, path_id, keypair, back, opened.plain, now_ns);
  }
}

void Peers::OnControl(Peer& peer, PeerPath& path, uint8_t path_id, const Keypair& keypair,
                      const Route& back, Bytes plain, TimeNs now_ns) {
  ControlMessage message;
  switch (ReadControlMessage(plain, message)) {
    case ControlVerdict::kOk:
      break;
    case ControlVerdict::kUnknownType:
      return;
    case ControlVerdict::kMalformed:
      return drops_.Count(Drop::bad_control);
  }
  switch (message.type) {
    case ControlMessage::Type::kPing:
      return SendControl(peer, path_id, back, {ControlMessage::Type::kPong, message.token}, now_ns);
    case ControlMessage::Type::kPong:
      return OnPong(peer, path, path_id, message.token, now_ns);
    case ControlMessage::Type::kConfirmEpoch:
      return peer.sender.ConfirmEpoch(message.session, message.epoch);
    case ControlMessage::Type::kHello:
      return;
    case ControlMessage::Type::kClose:
      return OnClose(peer, keypair.id);
  }
}

// The other end speaks under the keys before until it has seen the current ones in use. Apart from
// that, a close under them is of an earlier session.
void Peers::OnClose(Peer& peer, uint64_t keypair_id) {
  const auto is = [keypair_id](const std::unique_ptr<const Keypair>& keypair) {
    return keypair != nullptr && keypair->id == keypair_id;
  };
  if (!is(peer.current) && (peer.confirmed_current || !is(peer.previous))) return;
  DropSession(peer, "closed by the other end");
}

void Peers::OnPong(Peer& peer, PeerPath& path, uint8_t path_id, uint64_t token, TimeNs now_ns) {
  if (path.source.OnPong(token)) return MoveTo(peer, path_id, path.source.current(), now_ns);
  const auto sent_ns = path.pings.SentAt(token);
  if (!sent_ns) return;
  const double rtt_ms = static_cast<double>(now_ns - *sent_ns) / kMillisecondNs;
  path.rtt_ms = path.rtt_ms ? *path.rtt_ms + kRttWeight * (rtt_ms - *path.rtt_ms) : rtt_ms;
  path.pings.Forget();
  path.ping_under_way = false;
  path.unanswered_pings = 0;
  path.next_ping_ns = now_ns + peer.keepalive_ns;
  if (!path.up) {
    path.up = true;
    ChoosePath(peer);
  }
}

void Peers::SendControl(Peer& peer, uint8_t path_id, const Route& route,
                        const ControlMessage& message, TimeNs now_ns) {
  if (!peer.established() || !route.remote.is_set()) return;
  if (const auto drop = peer.sender.Prepare(*peer.current, kSlowLane, now_ns)) {
    return drops_.Count(*drop);
  }
  std::array<uint8_t, kMaxControlBytes> plain;
  const size_t bytes = WriteControlMessage(message, plain);
  std::array<uint8_t, kMaxControlBytes + kSealOverheadBytes> datagram;
  peer.sender.Seal(Kind::kControl, path_id, 0, {plain.data(), bytes}, datagram.data());
  host_.SendDatagram(route, {datagram.data(), bytes + kSealOverheadBytes});
}

void Peers::SendPing(Peer& peer, uint8_t path_id, TimeNs now_ns) {
  PeerPath& path = peer.paths[path_id];
  const uint64_t token = path.pings.Add(RandomToken(), now_ns);
  path.ping_under_way = true;
  path.next_ping_ns = now_ns + PingTimeout(path);
  SendControl(peer, path_id, path.route, {ControlMessage::Type::kPing, token}, now_ns);
}

PeerPath& Peers::PathOf(Peer& peer, uint8_t path_id) {
  if (path_id < peer.paths.size()) return peer.paths[path_id];
  // As long as there was but one path nobody asked when it was heard.
  if (peer.paths.size() == 1) NoteHeard(peer, host_.ActivityOf(peer.slot));
  while (peer.paths.size() <= path_id) {
    PeerPath path;
    path.name = "path" + std::to_string(peer.paths.size());
    path.stamper.emplace(peer.keys->public_key);
    peer.paths.push_back(std::move(path));
  }
  Schedule(peer);
  return peer.paths[path_id];
}

void Peers::MoveTo(Peer& peer, uint8_t path_id, const Route& route, TimeNs) {
  PeerPath& path = peer.paths[path_id];
  if (path.route == route) return;
  if (path.route.remote.is_set()) {
    host_.Report("peer \"" + peer.name + "\": path \"" + path.name + "\" now leads to " +
                 route.remote.ToString());
  }
  path.route = route;
  host_.Tell({.type = Command::Type::kSetPath, .peer = peer.slot, .path = path_id, .route = route});
}

void Peers::ChoosePath(Peer& peer) {
  if (peer.paths[peer.active_path].up) return;
  const auto better = [](const PeerPath& a, const PeerPath& b) {
    if (a.up != b.up) return a.up;
    return a.rtt_ms.value_or(1e9) < b.rtt_ms.value_or(1e9);
  };
  const auto best = std::min_element(peer.paths.begin(), peer.paths.end(), better);
  if (!best->up) return;
  peer.active_path = static_cast<uint8_t>(best - peer.paths.begin());
  host_.Tell({.type = Command::Type::kUsePath, .peer = peer.slot, .path = peer.active_path});
}

// --- Time ---

void Peers::Tick(TimeNs now_ns) {
  if (closed_) return;
  due_now_.clear();
  while (!due_.empty() && due_.top().first <= now_ns) {
    const auto [due_ns, slot] = due_.top();
    due_.pop();
    Peer& peer = *peers_[slot];
    if (peer.due_ns != due_ns) continue;
    peer.due_ns = 0;
    due_now_.push_back(slot);
  }
  for (const PeerSlot slot : due_now_) {
    TickPeer(*peers_[slot], now_ns);
    Schedule(*peers_[slot]);
  }
}

TimeNs Peers::DueOf(const Peer& peer) const {
  if (peer.initiates || (peer.established() && peer.paths.size() > 1)) return kEveryTick;
  TimeNs due_ns = kNever;
  for (const auto* keypair : {&peer.previous, &peer.current, &peer.next}) {
    if (*keypair != nullptr) due_ns = std::min(due_ns, (*keypair)->open_until_ns);
  }
  return due_ns;
}

void Peers::Schedule(Peer& peer) {
  const TimeNs due_ns = DueOf(peer);
  if (due_ns == kNever || (peer.due_ns != 0 && peer.due_ns <= due_ns)) return;
  peer.due_ns = due_ns;
  due_.emplace(due_ns, peer.slot);
}

void Peers::TickPeer(Peer& peer, TimeNs now_ns) {
  TickKeys(peer, now_ns);
  const PeerActivity activity = host_.ActivityOf(peer.slot);
  if (peer.established()) TickPaths(peer, activity, now_ns);
  if (peer.initiates) TickHandshakes(peer, activity, now_ns);
}

void Peers::TickKeys(Peer& peer, TimeNs now_ns) {
  for (auto* keypair : {&peer.previous, &peer.next}) {
    if (*keypair != nullptr && now_ns >= (*keypair)->open_until_ns) Withdraw(peer, *keypair);
  }
  if (peer.current != nullptr && now_ns >= peer.current->open_until_ns) {
    DropSession(peer, "the keys are too old");
  }
}

// What workers heard counts for the path that it came over, or a dead one would be kept by the
// traffic of another.
void Peers::NoteHeard(Peer& peer, const PeerActivity& activity) {
  for (size_t id = 0; id < peer.paths.size(); ++id) {
    PeerPath& path = peer.paths[id];
    const uint64_t before = std::exchange(path.rx_datagrams, activity.rx_datagrams[id]);
    if (path.rx_datagrams == before) continue;
    path.heard_ns = std::max(path.heard_ns, activity.last_rx_ns);
  }
}

void Peers::TickPaths(Peer& peer, const PeerActivity& activity, TimeNs now_ns) {
  NoteHeard(peer, activity);
  if (!peer.initiates) {
    for (PeerPath& path : peer.paths) {
      path.up = path.route.remote.is_set() &&
                (peer.paths.size() == 1 || now_ns < path.heard_ns + kServerPathSilenceNs);
    }
    return ChoosePath(peer);
  }
  for (size_t id = 0; id < peer.paths.size(); ++id) {
    PeerPath& path = peer.paths[id];
    if (!path.route.remote.is_set()) continue;
    const auto path_id = static_cast<uint8_t>(id);
    if (path.ping_under_way) {
      if (now_ns < path.next_ping_ns) continue;
      if (++path.unanswered_pings >= kPingsUntilHandshake && path.up) {
        path.up = false;
        ChoosePath(peer);
      }
      SendPing(peer, path_id, now_ns);
      continue;
    }
    const bool due = peer.keepalive_ns != 0 && now_ns >= path.next_ping_ns;
    const bool unanswered_traffic = id == peer.active_path && activity.last_tx_ns > path.heard_ns &&
                                    now_ns > path.heard_ns + kPingTimeoutNs;
    if (due || unanswered_traffic || !peer.confirmed_current) SendPing(peer, path_id, now_ns);
  }
}

void Peers::TickHandshakes(Peer& peer, const PeerActivity& activity, TimeNs now_ns) {
  if (peer.next_attempt_ns == 0) {
    const bool old = peer.established() && now_ns >= peer.established_ns + options_.rekey_after_ns;
    const bool used =
        activity.tx_packets - peer.packets_at_handshake >= options_.rekey_after_packets;
    const bool lost = std::all_of(peer.paths.begin(), peer.paths.end(), [](const PeerPath& path) {
      return path.unanswered_pings >= kPingsUntilHandshake || !path.route.remote.is_set();
    });
    if (!peer.established() || old || used || lost) peer.next_attempt_ns = now_ns;
  }
  if (peer.next_attempt_ns != 0 && now_ns >= peer.next_attempt_ns) StartAttempt(peer, now_ns);
}

void Peers::Close(TimeNs now_ns) {
  for (auto& peer : peers_) {
    if (peer->established()) {
      SendControl(*peer, peer->active_path, peer->paths[peer->active_path].route,
                  {ControlMessage::Type::kClose}, now_ns);
    }
    EndAttempt(*peer);
    DropSession(*peer, "this end stops");
  }
  closed_ = true;
}

}  // namespace braid
