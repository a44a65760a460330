#include "slowpath/peers.h"

#include <sodium.h>
#include <time.h>

#include <algorithm>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "bonding/fec_block.h"
#include "fastpath/header_drop.h"

namespace braid {
namespace {

// In a handshake's features: the sender's counters go on from an earlier session of this process.
// Without it they begin anew, and so do the receiver's windows.
constexpr uint32_t kFeatureContinues = 1 << 0;
// The sender understands that a path is gone.
constexpr uint32_t kFeaturePathGone = 1 << 1;
// The sender answers probes of the MTU.
constexpr uint32_t kFeatureProbes = 1 << 2;
// The sender knows of a bond's lanes and messages.
constexpr uint32_t kFeatureBonds = 1 << 3;
// The sender makes up for losses by a bond's parity.
constexpr uint32_t kFeatureParity = 1 << 5;

// A lost probe is sent again after so long, or three round trips.
constexpr DurationNs kProbeTimeoutNs = 300 * kMillisecondNs;
// When packets go out so long and none come in, while pings are answered, larger ones may be lost.
constexpr DurationNs kStallNs = 2 * kSecondNs;
constexpr uint64_t kStalledPackets = 3;
constexpr DurationNs kSuspectEveryNs = 60 * kSecondNs;

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
// A path that is down may be back at any moment; one that has been for long costs less.
constexpr DurationNs kPingDownNs = 200 * kMillisecondNs;
constexpr int kQuickPings = 150;
constexpr double kRttWeight = 0.125;
// From here on a bond costs a flow less than what a loss does to it.
constexpr DurationNs kFarRttNs = 5 * kMillisecondNs;

// When a peer is due.
constexpr TimeNs kEveryTick = 1;

// A server goes over to another path when the one in use was silent so long and the other was not.
constexpr DurationNs kServerPathSilenceNs = 5 * kSecondNs;

// That a path is gone is told again until it was answered, and for so long. By then a server that
// has heard nothing of it sends nothing there.
constexpr DurationNs kTellPathGoneNs = 15 * kSecondNs;
static_assert(kTellPathGoneNs > 2 * kServerPathSilenceNs);

constexpr int kLastCloses = 3;

// A peer that is removed has left the workers, and what they tell each other, long before that.
constexpr DurationNs kSlotRestNs = 10 * kSecondNs;

uint64_t NewToken() {
  uint64_t token;
  randombytes_buf(&token, sizeof(token));
  return token;
}

uint8_t OfferBit(Cipher cipher) { return static_cast<uint8_t>(1 << static_cast<int>(cipher)); }

static_assert(kOfferChaCha20Poly1305 == 1 << static_cast<int>(Cipher::kChaCha20Poly1305));
static_assert(kOfferAes256Gcm == 1 << static_cast<int>(Cipher::kAes256Gcm));

DurationNs ThreeRtts(const PeerPath& path) {
  return static_cast<DurationNs>(path.rtt_ms.value_or(0) * 3 * kMillisecondNs);
}

DurationNs PingTimeout(const PeerPath& path) { return std::max(kPingTimeoutNs, ThreeRtts(path)); }
DurationNs ProbeTimeout(const PeerPath& path) { return std::max(kProbeTimeoutNs, ThreeRtts(path)); }

}  // namespace

Peers::Peers(PeersOptions options, PeerHost& host)
    : options_(std::move(options)), host_(host), cookies_(options_.identity.public_key) {}

Peers::~Peers() = default;

// --- Who there is ---

absl::StatusOr<PeerSlot> Peers::Add(const PeerConfig& config, PeerKeys keys, TimeNs now_ns) {
  const auto slot = TakeSlot(now_ns);
  if (!slot) {
    return absl::ResourceExhaustedError("peer \"" + config.name + "\": there is no room for it");
  }
  auto peer = std::make_unique<Peer>();
  peer->slot = *slot;
  peer->config = config;
  peer->keys = std::make_shared<const PeerKeys>(std::move(keys));
  peer->initiates = options_.role == Role::kClient;
  if (peer->initiates && mode_by_command_) {
    peer->wanted_mode = {*mode_by_command_, NewToken(), now_ns, false};
  }
  directory_.reset();
  all_.push_back(peer.get());
  peers_[*slot] = std::move(peer);
  Schedule(*peers_[*slot]);
  return *slot;
}

std::optional<PeerSlot> Peers::TakeSlot(TimeNs now_ns) {
  if (!vacant_slots_.empty() && now_ns >= vacant_slots_.front().free_ns) {
    const PeerSlot slot = vacant_slots_.front().slot;
    vacant_slots_.pop_front();
    return slot;
  }
  if (peers_.size() >= options_.max_peers) return std::nullopt;
  peers_.emplace_back();
  return static_cast<PeerSlot>(peers_.size() - 1);
}

size_t Peers::room(TimeNs now_ns) const {
  const auto free = std::count_if(vacant_slots_.begin(), vacant_slots_.end(),
                                  [&](const VacantSlot& slot) { return now_ns >= slot.free_ns; });
  return options_.max_peers - peers_.size() + static_cast<size_t>(free);
}

// All at once: there may be very many.
void Peers::Remove(const std::vector<PeerSlot>& slots, TimeNs now_ns) {
  const absl::flat_hash_set<PeerSlot> going(slots.begin(), slots.end());
  std::erase_if(all_, [&going](const Peer* peer) { return going.contains(peer->slot); });
  for (const PeerSlot slot : slots) {
    SayGoodbye(*peers_[slot], "it was removed", now_ns);
    host_.Tell({.type = Command::Type::kEndPeer, .peer = slot});
    peers_[slot].reset();
    vacant_slots_.push_back({slot, now_ns + kSlotRestNs});
  }
  directory_.reset();
}

const std::shared_ptr<const PeerDirectory>& Peers::Directory() {
  if (directory_ == nullptr) {
    auto directory = std::make_shared<PeerDirectory>(options_.identity);
    for (const Peer* peer : all_) directory->Add(peer->slot, peer->keys);
    directory_ = std::move(directory);
  }
  return directory_;
}

Peer* Peers::PeerOf(const HandshakeJob& job) {
  Peer* peer = job.peer() < peers_.size() ? peers_[job.peer()].get() : nullptr;
  return peer != nullptr && peer->keys.get() == job.keys() ? peer : nullptr;
}

size_t Peer::PathCount() const {
  return static_cast<size_t>(
      std::count_if(paths.begin(), paths.end(), [](const PeerPath& path) { return path.exists; }));
}

// --- A client's paths ---

void Peers::AddPath(uint8_t path_id, const std::string& name, const BondPathOptions& options) {
  for (const Peer* peer : all_) AddPathTo(peer->slot, path_id, name, options);
}

void Peers::AddPathTo(PeerSlot slot, uint8_t path_id, const std::string& name,
                      const BondPathOptions& options) {
  Peer& peer = *peers_[slot];
  if (!peer.initiates) return;
  if (peer.paths.size() <= path_id) peer.paths.resize(path_id + 1u);
  PeerPath& path = peer.paths[path_id];
  path = {};
  path.exists = true;
  path.name = name;
  path.options = options;
  path.stamper.emplace(peer.keys->public_key);
}

void Peers::SetPathOptions(uint8_t path_id, const BondPathOptions& options) {
  for (auto& peer : peers_) {
    if (peer == nullptr) continue;
    PeerPath* path = peer->initiates ? peer->FindPath(path_id) : nullptr;
    if (path == nullptr || path->options == options) continue;
    path->options = options;
    if (path->told_usable) TellPathUp(*peer, path_id);
  }
}

void Peers::SetPathRoute(PeerSlot slot, uint8_t path_id, const Route& route, TimeNs now_ns) {
  Peer& peer = *peers_[slot];
  PeerPath* path = peer.FindPath(path_id);
  if (path == nullptr || path->route == route) return;
  // It is back before the other end knew that it was gone; what is newer there counts.
  std::erase_if(peer.gone_paths, [&](const GonePath& gone) { return gone.id == path_id; });
  path->source.Forget();
  path->ping_under_way = false;
  path->unanswered_pings = 0;
  path->next_ping_ns = now_ns;
  MoveTo(peer, path_id, route, now_ns);
  if (!peer.established() && peer.initiates) peer.next_attempt_ns = now_ns;
}

void Peers::SuspendPath(uint8_t path_id, TimeNs now_ns) {
  for (auto& peer : peers_) {
    if (peer == nullptr) continue;
    PeerPath* path = peer->initiates ? peer->FindPath(path_id) : nullptr;
    if (path == nullptr || !path->route.remote.is_set()) continue;
    path->route = {};
    path->source.Forget();
    path->pings.Forget();
    path->ping_under_way = false;
    path->unanswered_pings = 0;
    path->rtt_ms.reset();
    path->least_rtt_ns = 0;
    path->up = false;
    path->refused = false;
    path->mtu_search.Stop();
    if (peer->attempt && peer->attempt_path == path_id) {
      EndAttempt(*peer);
      peer->next_attempt_ns = now_ns;
    }
    ChoosePath(*peer);
    UpdateMtu(*peer);
    TellPathGone(*peer, path_id, now_ns);
  }
}

void Peers::ForbidPath(uint8_t path_id, TimeNs now_ns) {
  for (auto& peer : peers_) {
    if (peer == nullptr) continue;
    const PeerPath* path = peer->initiates ? peer->FindPath(path_id) : nullptr;
    if (path == nullptr || !peer->established() || !path->route.remote.is_set()) continue;
    const auto leads = [](const PeerPath& one) { return one.route.remote.is_set(); };
    if (std::count_if(peer->paths.begin(), peer->paths.end(), leads) > 1) continue;
    // Nothing can be said again later, and the link may be full.
    for (int i = 0; i < kLastCloses; ++i) {
      SendControl(*peer, path_id, path->route, {ControlMessage::Type::kClose}, now_ns);
    }
    DropSession(*peer, "it may use no path any more");
  }
  SuspendPath(path_id, now_ns);
}

void Peers::RemovePath(uint8_t path_id, TimeNs now_ns) {
  SuspendPath(path_id, now_ns);
  for (auto& peer : peers_) {
    if (peer == nullptr) continue;
    if (peer->initiates && peer->FindPath(path_id) != nullptr) ForgetPath(*peer, path_id);
  }
}

bool Peers::MayUsePath(uint8_t path_id) const {
  return std::none_of(all_.begin(), all_.end(), [path_id](const Peer* peer) {
    return peer->FindPath(path_id) != nullptr ||
           std::any_of(peer->gone_paths.begin(), peer->gone_paths.end(),
                       [path_id](const GonePath& gone) { return gone.id == path_id; });
  });
}

void Peers::PingPaths(TimeNs now_ns) {
  for (auto& peer : peers_) {
    if (peer == nullptr) continue;
    if (!peer->initiates || !peer->established()) continue;
    for (size_t id = 0; id < peer->paths.size(); ++id) {
      PeerPath* path = peer->FindPath(id);
      if (path == nullptr || !path->route.remote.is_set()) continue;
      // Whether it is down, the pings that were due anyway tell.
      if (path->ping_under_way) {
        SendControl(*peer, static_cast<uint8_t>(id), path->route,
                    {ControlMessage::Type::kPing, path->pings.Add(NewToken(), now_ns)}, now_ns);
      } else {
        SendPing(*peer, static_cast<uint8_t>(id), now_ns);
      }
    }
  }
}

// The other end may know the path only if it holds something of this process at all.
void Peers::TellPathGone(Peer& peer, uint8_t path_id, TimeNs now_ns) {
  if (!peer.completed_once) return;
  std::erase_if(peer.gone_paths, [&](const GonePath& gone) { return gone.id == path_id; });
  peer.gone_paths.push_back({path_id, NewToken(), now_ns, now_ns + kTellPathGoneNs});
  TickGonePaths(peer, now_ns);
}

void Peers::TickGonePaths(Peer& peer, TimeNs now_ns) {
  std::erase_if(peer.gone_paths, [&](const GonePath& gone) { return now_ns >= gone.give_up_ns; });
  const PeerPath* by = peer.FindPath(peer.active_path);
  if (!peer.established() || by == nullptr || (peer.features & kFeaturePathGone) == 0) return;
  for (GonePath& gone : peer.gone_paths) {
    if (now_ns < gone.next_ns) continue;
    gone.next_ns = now_ns + PingTimeout(*by);
    ControlMessage message{ControlMessage::Type::kPathGone, gone.token};
    message.path = gone.id;
    SendControl(peer, peer.active_path, by->route, message, now_ns);
  }
}

// --- The bonding mode ---

void Peers::SetMode(BondingMode mode, TimeNs now_ns) {
  mode_by_command_ = mode;
  for (auto& peer : peers_) {
    if (peer == nullptr) continue;
    if (!peer->initiates) {
      SendInMode(*peer, std::nullopt);
      continue;
    }
    peer->wanted_mode = {mode, NewToken(), now_ns, false};
    TickWantedMode(*peer, now_ns);
  }
}

void Peers::TickWantedMode(Peer& peer, TimeNs now_ns) {
  const PeerPath* by = peer.FindPath(peer.active_path);
  if (!peer.established() || by == nullptr || (peer.features & kFeatureMode) == 0) return;
  if (!peer.wanted_mode || peer.wanted_mode->taken || now_ns < peer.wanted_mode->next_ns) return;
  peer.wanted_mode->next_ns = now_ns + PingTimeout(*by);
  ControlMessage message{ControlMessage::Type::kMode, peer.wanted_mode->token};
  message.mode = peer.wanted_mode->mode;
  SendControl(peer, peer.active_path, by->route, message, now_ns);
}

void Peers::OnMode(Peer& peer, BondingMode mode, uint64_t sequence) {
  if (peer.initiates || sequence < peer.asked_mode_sequence) return;
  peer.asked_mode_sequence = sequence;
  if (peer.asked_mode == mode) return;
  host_.Report("peer \"" + peer.config.name + "\": is sent to in mode " +
               std::string(NameOf(mode)) + ", as it has asked");
  SendInMode(peer, mode);
}

void Peers::SendInMode(Peer& peer, std::optional<BondingMode> mode) {
  if (peer.asked_mode == mode) return;
  peer.asked_mode = mode;
  host_.Tell({.type = Command::Type::kSetPeerMode, .peer = peer.slot, .mode = mode});
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
  if (closed_ || Find(event.peer) == nullptr) return;
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
    default:
      break;  // of others
  }
}

// --- Initiating ---

void Peers::StartAttempt(Peer& peer, TimeNs now_ns) {
  // A cookie was an answer, too.
  if (peer.attempt && !peer.retry_same_path) ++handshakes_.timed_out;
  EndAttempt(peer);
  // An unanswered mac2 may have been wrong for the other end, so the next goes without.
  PeerPath* last = peer.FindPath(peer.attempt_path);
  if (peer.attempt_had_cookie && last != nullptr) last->stamper->DropCookie();
  peer.attempt_had_cookie = false;

  // Each attempt takes the next path that leads anywhere.
  size_t path_id = peer.attempt_path + (peer.retry_same_path ? 0u : 1u);
  if (peer.attempts == 0) path_id = peer.active_path;
  peer.retry_same_path = false;
  const size_t paths = peer.paths.size();
  for (size_t tried = 0; tried < paths; ++tried, ++path_id) {
    if (peer.paths[path_id % paths].route.remote.is_set()) break;
  }
  if (paths != 0) peer.attempt_path = static_cast<uint8_t>(path_id % paths);
  ++peer.attempts;
  const DurationNs pause = peer.attempts < kQuickAttempts ? kAttemptEveryNs : kSlowAttemptEveryNs;
  peer.next_attempt_ns = now_ns + pause + randombytes_uniform(kAttemptJitterNs);

  if (paths == 0 || !peer.paths[peer.attempt_path].route.remote.is_set()) return;
  PeerPath& path = peer.paths[peer.attempt_path];
  auto attempt = InitiatorHandshake::Create(options_.identity, *peer.keys);
  if (!attempt.ok()) return;
  InitiationPayload payload;
  payload.sender_index = FreshIndex(peer.slot);
  payload.counter = host_.NextHandshakeCounter();
  payload.ciphers = OfferedCiphers();
  payload.lanes = static_cast<uint8_t>(options_.lanes);
  payload.mtu = options_.mtu;
  payload.features = Features(peer);
  peer.attempt_had_cookie = path.stamper->HasCookie(now_ns);
  std::array<uint8_t, kInitiationBytes> datagram;
  const auto bytes = attempt->Write(peer.attempt_path, payload, *path.stamper, now_ns, datagram);
  if (!bytes.ok()) return;
  peer.attempt = *std::move(attempt);
  peer.attempt_index = payload.sender_index;
  by_index_[peer.attempt_index] = {&peer, nullptr};
  ++handshakes_.begun;
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
  ++handshakes_.completed;
  auto keypair = MakeKeypair(peer, result->roots, peer.attempt_index, response.sender_index,
                             response.cipher, response.lanes, response.features, now_ns);
  peer.attempt_had_cookie = false;
  peer.attempts = 0;
  peer.next_attempt_ns = 0;
  const bool first = !peer.established();
  Withdraw(peer, peer.previous);
  Withdraw(peer, peer.next);
  peer.previous = std::move(peer.current);
  peer.current = std::move(keypair);
  peer.agreed_mtu = AgreedMtu(response.mtu);
  peer.features = response.features;
  peer.initiated_current = true;
  peer.confirmed_current = false;
  peer.completed_once = true;
  Announce(peer, *peer.current);
  // An end that has begun anew knows nothing of it.
  const bool anew = first || (response.features & kFeatureContinues) == 0;
  if (anew && peer.wanted_mode) peer.wanted_mode->taken = false;
  if (first) peer.active_path = peer.attempt_path;
  if (first) SearchMtus(peer, now_ns);
  UseForSending(peer, now_ns);
  for (PeerPath& path : peer.paths) path.unanswered_pings = 0;
  // The other end does not use the new keys before it has seen something sealed under them.
  SendPing(peer, peer.attempt_path, now_ns);
  if (first) {
    host_.OnSession(peer.slot, true);
    host_.Report("peer \"" + peer.config.name + "\": session established over path \"" +
                 peer.paths[peer.attempt_path].name + "\" with " +
                 std::string(CipherName(peer.current->aead->cipher)));
  }
}

void Peers::OnCookie(Bytes datagram, TimeNs now_ns) {
  // A server has no attempts, but may have many peers to look for one at.
  if (options_.role == Role::kServer) return drops_.Count(Drop::handshake_unexpected);
  for (auto& peer : peers_) {
    if (peer == nullptr) continue;
    if (!peer->attempt) continue;
    PeerPath& path = peer->paths[peer->attempt_path];  // it ends with its attempt
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

void Peers::RefuseInitiation(Drop reason) {
  ++handshakes_.refused;
  drops_.Count(reason);
}

void Peers::OnInitiation(Bytes datagram, const Route& back, TimeNs now_ns) {
  if (datagram.size() < kInitiationBytes || !ReadHandshakeHeader(datagram, Kind::kInitiation)) {
    return RefuseInitiation(Drop::handshake_malformed);
  }
  switch (cookies_.Admit(datagram, back.remote, flood_.UnderLoad(now_ns), now_ns)) {
    case Admission::kRefused:
      return RefuseInitiation(Drop::handshake_bad_mac);
    case Admission::kNeedsCookie: {
      flood_.OnInitiation(now_ns);
      std::array<uint8_t, kCookieReplyBytes> reply;
      const auto bytes = cookies_.WriteCookie(datagram, back.remote, now_ns, reply);
      if (bytes.ok()) host_.SendDatagram(back, {reply.data(), *bytes});
      return RefuseInitiation(Drop::handshake_rate_limited);
    }
    case Admission::kAdmitted:
      break;
  }
  flood_.OnInitiation(now_ns);
  if (flood_.UnderLoad(now_ns) && !flood_.Allow(back.remote, now_ns)) {
    return RefuseInitiation(Drop::handshake_rate_limited);
  }

  if (jobs_under_way_ >= kMaxHandshakeJobs) return RefuseInitiation(Drop::handshakes_busy);
  ++jobs_under_way_;
  ++handshakes_.begun;
  host_.RunJob(std::make_unique<HandshakeJob>(Directory(), datagram, back));
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
    RefuseInitiation(reason);
    return false;
  };
  if (!job.ok()) {
    return refuse(job.unknown_peer() ? Drop::handshake_unknown_peer : Drop::handshake_unauthentic);
  }
  Peer* known = PeerOf(job);
  if (known == nullptr) return refuse(Drop::handshake_unknown_peer);
  Peer& peer = *known;
  const InitiationPayload& initiation = job.initiation();
  if (initiation.counter <= peer.greatest_counter) return refuse(Drop::handshake_replayed);
  // Where this end initiates, it alone does.
  if (peer.initiates || job.path_id() >= kMaxPaths) return refuse(Drop::handshake_unexpected);
  peer.greatest_counter = initiation.counter;
  job.Answer({.sender_index = FreshIndex(peer.slot),
              .cipher = PickCipher(initiation.ciphers),
              .lanes = static_cast<uint8_t>(std::min<int>(options_.lanes, initiation.lanes)),
              .mtu = options_.mtu,
              .features = Features(peer)});
  return true;
}

void Peers::InstallNext(const HandshakeJob& job, TimeNs now_ns) {
  if (!job.ok()) return RefuseInitiation(Drop::handshake_unauthentic);
  Peer* known = PeerOf(job);
  if (known == nullptr) return RefuseInitiation(Drop::handshake_unknown_peer);
  Peer& peer = *known;
  const InitiationPayload& initiation = job.initiation();
  const ResponsePayload& answer = job.answer();
  // Since it was decided on, the peer may have begun anew: it waits for another response then.
  if (initiation.counter < peer.greatest_counter) return RefuseInitiation(Drop::handshake_replayed);
  // The same index may have been drawn for another handshake: one in four billion has to try again.
  if (by_index_.contains(answer.sender_index)) return RefuseInitiation(Drop::handshakes_busy);
  PathOf(peer, job.path_id());
  if (peer.next != nullptr) ++handshakes_.timed_out;
  Withdraw(peer, peer.next);
  peer.next = MakeKeypair(peer, job.roots(), answer.sender_index, initiation.sender_index,
                          answer.cipher, answer.lanes, initiation.features, now_ns);
  peer.agreed_mtu = AgreedMtu(initiation.mtu);
  peer.features = initiation.features;
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
  ++handshakes_.completed;
  if (first) {
    // Its sequences may have begun anew, too.
    peer.gone_before = {};
    peer.asked_mode_sequence = 0;
    SendInMode(peer, std::nullopt);
    for (size_t id = 0; id < peer.paths.size(); ++id) {
      if (id != peer.initiation_path) ForgetPath(peer, static_cast<uint8_t>(id));
    }
  }
  PeerPath& path = PathOf(peer, peer.initiation_path);
  if (first) path.heard_sequence = 0;
  path.up = true;
  path.heard_ns = now_ns;
  if (!(path.route == peer.initiation_route)) {
    path.source.Forget();
    MoveTo(peer, peer.initiation_path, peer.initiation_route, now_ns);
  }
  if (first) peer.active_path = peer.initiation_path;
  if (first) SearchMtus(peer, now_ns);
  UseForSending(peer, now_ns);
  Schedule(peer);
  if (first) {
    host_.OnSession(peer.slot, true);
    host_.Report("peer \"" + peer.config.name + "\": session established from " +
                 path.route.remote.ToString() + " with " +
                 std::string(CipherName(peer.current->aead->cipher)));
  }
}

// --- Keys ---

std::unique_ptr<const Keypair> Peers::MakeKeypair(Peer& peer, const TransportRoots& roots,
                                                  uint32_t local_index, uint32_t remote_index,
                                                  uint8_t cipher_bit, uint8_t lanes,
                                                  uint32_t features, TimeNs now_ns) {
  if ((features & kFeatureContinues) == 0) ++peer.generation;
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
  keypair->bonds = (features & kFeatureBonds) != 0;
  keypair->parity = keypair->bonds && (features & kFeatureParity) != 0;
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
  peer.mtu = SessionMtu(peer);
  TellMtu(peer);
  host_.Tell({.type = Command::Type::kUsePath, .peer = peer.slot, .path = peer.active_path});
  TellUsable(peer);
}

void Peers::DropSession(Peer& peer, const char* why) {
  if (!peer.established() && peer.next == nullptr) return;
  const bool was_established = peer.established();
  if (was_established) {
    host_.Report("peer \"" + peer.config.name + "\": session ended: " + why);
  }
  Withdraw(peer, peer.previous);
  Withdraw(peer, peer.current);
  Withdraw(peer, peer.next);
  for (PeerPath& path : peer.paths) {
    path.up = false;
    path.pings.Forget();
    path.ping_under_way = false;
    path.unanswered_pings = 0;
  }
  TellUsable(peer);
  if (was_established) host_.OnSession(peer.slot, false);
}

// A server's steering program finds the worker of a bond by the index.
uint32_t Peers::FreshIndex(PeerSlot slot) {
  const auto workers = static_cast<uint32_t>(options_.workers);
  uint32_t index = 0;
  while (index == 0 || index % workers != slot % workers || by_index_.contains(index)) {
    index = randombytes_random();
  }
  return index;
}

uint32_t Peers::Features(const Peer& peer) const {
  return kFeaturePathGone | kFeatureBonds | kFeatureMode | kFeatureParity |
         (options_.answers_probes ? kFeatureProbes : 0) |
         (peer.completed_once ? kFeatureContinues : 0);
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
  // A client's own path may have gone in the meantime, or have lost its link.
  const PeerPath* known = peer.FindPath(path_id);
  if (peer.initiates && (known == nullptr || !known->route.remote.is_set())) {
    return drops_.Count(Drop::bad_path);
  }
  if (!peer.initiates && header.sequence < peer.gone_before[path_id]) return;
  PeerPath& path = PathOf(peer, path_id);
  path.heard_ns = now_ns;
  path.heard_sequence = std::max(path.heard_sequence, header.sequence);
  if (&keypair == peer.current.get()) peer.confirmed_current = true;
  if (opened.newest) {
    const IpAddress proven = path.route.remote.address;
    if (path.source.OnNewest(back, proven, now_ns, NewToken)) {
      SendControl(peer, path_id, back, {ControlMessage::Type::kPing, path.source.token()}, now_ns);
    }
    if (path.source.current().remote.is_set()) MoveTo(peer, path_id, path.source.current(), now_ns);
  }
  if (header.kind == Kind::kControl) {
    OnControl(peer, path_id, header, keypair, back, opened.plain, now_ns);
  }
}

void Peers::OnControl(Peer& peer, uint8_t path_id, const Header& header, const Keypair& keypair,
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
      if (!peer.paths[path_id].up) host_.ResolveAnew(back);
      return SendControl(peer, path_id, back, {ControlMessage::Type::kPong, message.token}, now_ns);
    case ControlMessage::Type::kPong:
      return OnPong(peer, peer.paths[path_id], path_id, message.token, now_ns);
    case ControlMessage::Type::kConfirmEpoch:
      return peer.sender.ConfirmEpoch(message.session, message.epoch);
    case ControlMessage::Type::kHello:
      return;
    case ControlMessage::Type::kClose:
      return OnClose(peer, keypair.id);
    case ControlMessage::Type::kPathGone:
      SendControl(peer, path_id, back, {ControlMessage::Type::kPong, message.token}, now_ns);
      return OnPathGone(peer, message.path, header.sequence);
    case ControlMessage::Type::kMode:
      SendControl(peer, path_id, back, {ControlMessage::Type::kPong, message.token}, now_ns);
      return OnMode(peer, message.mode, header.sequence);
    case ControlMessage::Type::kProbe: {
      ControlMessage answer{ControlMessage::Type::kProbed, message.token};
      answer.mtu = message.mtu;
      return SendControl(peer, path_id, back, answer, now_ns);
    }
    case ControlMessage::Type::kProbed:
      if (const auto sent_ns = peer.paths[path_id].pings.SentAt(message.token)) {
        NoteRoundTrip(peer, path_id, now_ns - *sent_ns);
      }
      if (peer.paths[path_id].mtu_search.OnProbed(message.token, message.mtu, now_ns)) {
        UpdateMtu(peer);
        TickMtus(peer, now_ns);
        Schedule(peer);
      }
      return;
  }
}

// Unless something newer has come over a path of this id since: then the id is in use again.
void Peers::OnPathGone(Peer& peer, uint8_t path_id, uint64_t sequence) {
  if (peer.initiates || path_id >= kMaxPaths) return;
  const PeerPath* path = peer.FindPath(path_id);
  if (path != nullptr && path->heard_sequence >= sequence) return;
  peer.gone_before[path_id] = std::max(peer.gone_before[path_id], sequence);
  if (path == nullptr) return;
  host_.Report("peer \"" + peer.config.name + "\": path \"" + path->name + "\" is gone");
  ForgetPath(peer, path_id);
}

void Peers::ForgetPath(Peer& peer, uint8_t path_id) {
  if (peer.FindPath(path_id) == nullptr) return;
  if (peer.attempt && peer.attempt_path == path_id) EndAttempt(peer);
  peer.paths[path_id] = {};
  host_.Tell({.type = Command::Type::kEndPath, .peer = peer.slot, .path = path_id});
  TakeOnlyPath(peer);
  ChoosePath(peer);
  UpdateMtu(peer);
}

// Of a server: when there is but one path nobody asks when it was heard.
void Peers::TakeOnlyPath(Peer& peer) {
  if (peer.initiates || peer.PathCount() != 1) return;
  for (PeerPath& path : peer.paths) path.up = path.route.remote.is_set();
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
  std::erase_if(peer.gone_paths, [token](const GonePath& gone) { return gone.token == token; });
  if (peer.wanted_mode && peer.wanted_mode->token == token) peer.wanted_mode->taken = true;
  const auto sent_ns = path.pings.SentAt(token);
  if (!sent_ns) return;
  const double rtt_ms = static_cast<double>(now_ns - *sent_ns) / kMillisecondNs;
  path.rtt_ms = path.rtt_ms ? *path.rtt_ms + kRttWeight * (rtt_ms - *path.rtt_ms) : rtt_ms;
  NoteRoundTrip(peer, path_id, now_ns - *sent_ns);
  path.pings.Forget();
  path.ping_under_way = false;
  path.unanswered_pings = 0;
  path.next_ping_ns = now_ns + peer.keepalive_ns();
  if (!path.up) {
    path.up = true;
    ChoosePath(peer);
    UpdateMtu(peer);
  }
}

// The least of all, so that a busy machine makes no path far for long.
void Peers::NoteRoundTrip(Peer& peer, uint8_t path_id, DurationNs rtt_ns) {
  PeerPath& path = peer.paths[path_id];
  path.least_rtt_ns = path.least_rtt_ns == 0 ? rtt_ns : std::min(path.least_rtt_ns, rtt_ns);
  if (path.told_usable && path.told_far != (path.least_rtt_ns >= kFarRttNs))
    TellPathUp(peer, path_id);
}

void Peers::SendControl(Peer& peer, uint8_t path_id, const Route& route,
                        const ControlMessage& message, TimeNs now_ns) {
  std::array<uint8_t, kMaxControlBytes> plain;
  const size_t bytes = WriteControlMessage(message, plain);
  SendPlain(peer, path_id, route, {plain.data(), bytes}, now_ns);
}

void Peers::SendProbe(Peer& peer, uint8_t path_id, const MtuSearch::Probe& probe, TimeNs now_ns) {
  std::array<uint8_t, kMaxControlBytes> head;
  const size_t bytes = WriteControlMessage({ControlMessage::Type::kProbe, probe.token}, head);
  std::vector<uint8_t> plain(probe.mtu);
  std::copy_n(head.begin(), bytes, plain.begin());
  peer.paths[path_id].pings.Add(probe.token, now_ns);
  SendPlain(peer, path_id, peer.paths[path_id].route, plain, now_ns);
}

void Peers::SendPlain(Peer& peer, uint8_t path_id, const Route& route, Bytes plain, TimeNs now_ns) {
  if (!peer.established() || !route.remote.is_set()) return;
  if (const auto drop = peer.sender.Prepare(*peer.current, kSlowLane, now_ns)) {
    return drops_.Count(*drop);
  }
  std::vector<uint8_t> datagram(plain.size() + kSealOverheadBytes);
  peer.sender.Seal(Kind::kControl, path_id, 0, plain, datagram.data());
  host_.SendDatagram(route, datagram);
}

void Peers::SendPing(Peer& peer, uint8_t path_id, TimeNs now_ns) {
  PeerPath& path = peer.paths[path_id];
  const uint64_t token = path.pings.Add(NewToken(), now_ns);
  path.ping_under_way = true;
  if (!path.up && path.unanswered_pings != 0) host_.ResolveAnew(path.route);
  const bool quick = !path.up && path.rtt_ms && path.unanswered_pings < kQuickPings;
  path.next_ping_ns = now_ns + (quick ? std::max(kPingDownNs, ThreeRtts(path)) : PingTimeout(path));
  SendControl(peer, path_id, path.route, {ControlMessage::Type::kPing, token}, now_ns);
}

// Of a server, whose peers' paths come with what comes over them.
PeerPath& Peers::PathOf(Peer& peer, uint8_t path_id) {
  if (PeerPath* path = peer.FindPath(path_id)) return *path;
  // As long as there was but one path nobody asked when it was heard.
  if (peer.PathCount() == 1) NoteHeard(peer, host_.ActivityOf(peer.slot));
  if (peer.paths.size() <= path_id) peer.paths.resize(path_id + 1u);
  PeerPath& path = peer.paths[path_id];
  path.exists = true;
  path.name = "path" + std::to_string(path_id);
  Schedule(peer);
  return path;
}

void Peers::MoveTo(Peer& peer, uint8_t path_id, const Route& route, TimeNs now_ns) {
  PeerPath& path = peer.paths[path_id];
  if (path.route == route) return;
  if (path.route.remote.is_set()) {
    host_.Report("peer \"" + peer.config.name + "\": path \"" + path.name + "\" now leads to " +
                 route.remote.ToString());
  }
  path.route = route;
  path.least_rtt_ns = 0;
  path.refused = false;  // another way may carry more
  path.mtu_search.Stop();
  host_.Tell({.type = Command::Type::kSetPath, .peer = peer.slot, .path = path_id, .route = route});
  SearchMtu(peer, path_id, now_ns);
  TakeOnlyPath(peer);
  ChoosePath(peer);
  UpdateMtu(peer);
  Schedule(peer);
}

// --- MTU ---

bool Peers::AnswersProbes(const Peer& peer) const {
  return peer.established() && (peer.features & kFeatureProbes) != 0;
}

void Peers::SearchMtu(Peer& peer, uint8_t path_id, TimeNs now_ns) {
  PeerPath& path = peer.paths[path_id];
  if (!path.route.remote.is_set()) return;
  const PeerHost::LinkMtu link = host_.LinkMtuOf(path.route);
  path.link_mtu = link.mtu;
  const bool link_is_too_small = link.mtu != 0 && link.mtu < kMinMtu;
  if (!AnswersProbes(peer) && !link_is_too_small) return path.mtu_search.Stop();
  const auto wanted =
      static_cast<uint16_t>(std::min<size_t>(peer.agreed_mtu + RoomForParity(peer), kMaxMtu));
  const uint16_t largest = link.mtu == 0 ? wanted : std::min(link.mtu, wanted);
  path.mtu_search.Start(largest, link.overhead_bytes, now_ns);
}

void Peers::SearchMtus(Peer& peer, TimeNs now_ns) {
  for (size_t id = 0; id < peer.paths.size(); ++id) {
    if (peer.paths[id].exists) SearchMtu(peer, static_cast<uint8_t>(id), now_ns);
  }
}

void Peers::SearchMtus(TimeNs now_ns) {
  for (auto& peer : peers_) {
    if (peer == nullptr) continue;
    for (size_t id = 0; id < peer->paths.size(); ++id) {
      PeerPath& path = peer->paths[id];
      if (!path.route.remote.is_set() || host_.LinkMtuOf(path.route).mtu == path.link_mtu) continue;
      SearchMtu(*peer, static_cast<uint8_t>(id), now_ns);
    }
    UpdateMtu(*peer);
  }
}

void Peers::SuspectBlackHole(PeerSlot slot, uint8_t path_id, TimeNs now_ns) {
  Peer& peer = *peers_[slot];
  PeerPath* path = peer.FindPath(path_id);
  if (path == nullptr || now_ns < path->suspected_ns) return;
  path->suspected_ns = now_ns + kSuspectEveryNs;
  path->mtu_search.SuspectBlackHole(now_ns);
  Schedule(peer);
}

uint16_t Peers::SessionMtu(const Peer& peer) const {
  uint16_t mtu = peer.agreed_mtu;
  // Before the first answer all of them may come to be used.
  const bool any = std::any_of(peer.paths.begin(), peer.paths.end(),
                               [](const PeerPath& path) { return path.usable(); });
  for (const PeerPath& path : peer.paths) {
    const bool counts = any ? path.usable() : path.route.remote.is_set() && !path.refused;
    if (!counts || path.mtu() == 0) continue;
    mtu = std::min(mtu, static_cast<uint16_t>(path.mtu() - RoomForParity(peer)));
  }
  return std::max<uint16_t>(mtu, kMinMtu);
}

uint16_t Peers::RoomForParity(const Peer& peer) const {
  const bool parity = options_.sends_parity && (peer.features & kFeatureParity) != 0;
  return parity ? kParityOverheadBytes : 0;
}

void Peers::SetSendsParity(bool sends_parity) {
  if (std::exchange(options_.sends_parity, sends_parity) == sends_parity) return;
  for (auto& peer : peers_) {
    if (peer != nullptr) UpdateMtu(*peer);
  }
}

void Peers::UpdateMtu(Peer& peer) {
  for (size_t id = 0; id < peer.paths.size(); ++id) {
    if (peer.paths[id].exists) RefuseOrTake(peer, static_cast<uint8_t>(id));
  }
  // Without any usable path what was known stands.
  const bool is_usable = std::any_of(peer.paths.begin(), peer.paths.end(),
                                     [](const PeerPath& path) { return path.usable(); });
  if (!peer.established() || !is_usable) return;
  if (const uint16_t mtu = SessionMtu(peer); mtu != peer.mtu) {
    peer.mtu = mtu;
    TellMtu(peer);
  }
}

void Peers::RefuseOrTake(Peer& peer, uint8_t path_id) {
  PeerPath& path = peer.paths[path_id];
  const bool refused = path.mtu_search.too_small();
  if (refused == path.refused) return;
  path.refused = refused;
  const std::string where = "peer \"" + peer.config.name + "\": path \"" + path.name + "\" ";
  if (refused) {
    host_.ReportProblem(where + kCarriesTooLittle);
    path.told_usable = false;
    host_.Tell({.type = Command::Type::kEndPath, .peer = peer.slot, .path = path_id});
  } else {
    host_.Report(where + "carries enough now");
    if (path.route.remote.is_set()) {
      host_.Tell({.type = Command::Type::kSetPath,
                  .peer = peer.slot,
                  .path = path_id,
                  .route = path.route});
    }
  }
  ChoosePath(peer);
}

void Peers::TellMtu(Peer& peer) {
  host_.Tell({.type = Command::Type::kSendUnder,
              .peer = peer.slot,
              .keypair = peer.current.get(),
              .mtu = peer.mtu});
  host_.OnSessionMtu(peer.slot, peer.mtu);
}

void Peers::TickMtus(Peer& peer, TimeNs now_ns) {
  if (!peer.established()) return;
  for (size_t id = 0; id < peer.paths.size(); ++id) {
    PeerPath& path = peer.paths[id];
    // One that is down would only be found to be silent.
    if (!path.exists || !path.up || now_ns < path.mtu_search.due_ns()) continue;
    while (const auto probe =
               path.mtu_search.Next(now_ns, ProbeTimeout(path), [] { return NewToken(); })) {
      SendProbe(peer, static_cast<uint8_t>(id), *probe, now_ns);
    }
  }
  UpdateMtu(peer);
}

// Acknowledgements come back for most traffic. Where they do not, a look costs three probes.
void Peers::WatchForBlackHole(Peer& peer, const PeerActivity& activity, TimeNs now_ns) {
  PeerPath& path = peer.paths[peer.active_path];
  const bool stalls = path.up && path.rx_datagrams == activity.rx_datagrams[peer.active_path] &&
                      path.stalled_since_ns != 0;
  if (!stalls) {
    path.stalled_since_ns = now_ns;
    path.stalled_tx_packets = activity.tx_packets;
    return;
  }
  if (now_ns < path.stalled_since_ns + kStallNs) return;
  const uint64_t sent = activity.tx_packets - path.stalled_tx_packets;
  path.stalled_since_ns = 0;
  if (sent >= kStalledPackets) SuspectBlackHole(peer.slot, peer.active_path, now_ns);
}

// What the workers may send over. They know the route before.
void Peers::TellUsable(Peer& peer) {
  for (size_t id = 0; id < peer.paths.size(); ++id) {
    PeerPath& path = peer.paths[id];
    const bool usable = path.exists && path.usable() && path.route.remote.is_set();
    if (path.told_usable == usable) continue;
    path.told_usable = usable;
    TellPathUp(peer, static_cast<uint8_t>(id));
    if (path.exists) host_.OnPathUsable(peer.slot, static_cast<uint8_t>(id), usable);
  }
}

void Peers::TellPathUp(Peer& peer, uint8_t path_id) {
  PeerPath& path = peer.paths[path_id];
  path.told_far = path.least_rtt_ns >= kFarRttNs;
  host_.Tell({.type = Command::Type::kSetPathUp,
              .peer = peer.slot,
              .path = path_id,
              .up = path.told_usable,
              .far = path.told_far,
              .path_options = path.options});
}

void Peers::ChoosePath(Peer& peer) {
  TellUsable(peer);
  const PeerPath* active = peer.FindPath(peer.active_path);
  if ((active != nullptr && active->usable()) || peer.paths.empty()) return;
  const auto better = [](const PeerPath& a, const PeerPath& b) {
    if (a.usable() != b.usable()) return a.usable();
    return a.rtt_ms.value_or(1e9) < b.rtt_ms.value_or(1e9);
  };
  const auto best = std::min_element(peer.paths.begin(), peer.paths.end(), better);
  if (!best->usable()) return;
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
    Peer* peer = peers_[slot].get();
    if (peer == nullptr || peer->due_ns != due_ns) continue;
    peer->due_ns = 0;
    due_now_.push_back(slot);
  }
  for (const PeerSlot slot : due_now_) {
    TickPeer(*peers_[slot], now_ns);
    Schedule(*peers_[slot]);
  }
}

TimeNs Peers::DueOf(const Peer& peer) const {
  if (peer.initiates || (peer.established() && peer.PathCount() > 1)) return kEveryTick;
  TimeNs due_ns = kNever;
  for (const auto* keypair : {&peer.previous, &peer.current, &peer.next}) {
    if (*keypair != nullptr) due_ns = std::min(due_ns, (*keypair)->open_until_ns);
  }
  for (const PeerPath& path : peer.paths) {
    if (peer.established() && path.up) due_ns = std::min(due_ns, path.mtu_search.due_ns());
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
  TickMtus(peer, now_ns);
  if (peer.initiates) TickHandshakes(peer, activity, now_ns);
  TellUsable(peer);
}

void Peers::TickKeys(Peer& peer, TimeNs now_ns) {
  for (auto* keypair : {&peer.previous, &peer.next}) {
    if (*keypair == nullptr || now_ns < (*keypair)->open_until_ns) continue;
    if (keypair == &peer.next) ++handshakes_.timed_out;
    Withdraw(peer, *keypair);
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
    if (path.rx_datagrams == before || !path.exists) continue;
    path.heard_ns = std::max(path.heard_ns, activity.last_rx_ns);
  }
}

void Peers::TickPaths(Peer& peer, const PeerActivity& activity, TimeNs now_ns) {
  if (peer.initiates && peer.FindPath(peer.active_path) != nullptr) {
    WatchForBlackHole(peer, activity, now_ns);
  }
  NoteHeard(peer, activity);
  if (!peer.initiates) {
    const bool is_only = peer.PathCount() == 1;
    for (PeerPath& path : peer.paths) {
      path.up =
          path.route.remote.is_set() && (is_only || now_ns < path.heard_ns + kServerPathSilenceNs);
    }
    return ChoosePath(peer);
  }
  TickGonePaths(peer, now_ns);
  TickWantedMode(peer, now_ns);
  for (size_t id = 0; id < peer.paths.size(); ++id) {
    PeerPath& path = peer.paths[id];
    if (!path.route.remote.is_set()) continue;
    const auto path_id = static_cast<uint8_t>(id);
    if (path.ping_under_way) {
      if (now_ns < path.next_ping_ns) continue;
      if (++path.unanswered_pings >= kPingsUntilHandshake && path.up) {
        path.up = false;
        ChoosePath(peer);
        UpdateMtu(peer);
      }
      SendPing(peer, path_id, now_ns);
      continue;
    }
    const bool due = peer.keepalive_ns() != 0 && now_ns >= path.next_ping_ns;
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
    // With nowhere to send to there is nothing to be learned.
    bool leads_anywhere = false;
    bool lost = true;
    for (const PeerPath& path : peer.paths) {
      if (!path.route.remote.is_set()) continue;
      leads_anywhere = true;
      lost = lost && path.unanswered_pings >= kPingsUntilHandshake;
    }
    lost = lost && leads_anywhere;
    if (!peer.established() || old || used || lost) peer.next_attempt_ns = now_ns;
  }
  if (peer.next_attempt_ns != 0 && now_ns >= peer.next_attempt_ns) StartAttempt(peer, now_ns);
}

void Peers::SayGoodbye(Peer& peer, const char* why, TimeNs now_ns) {
  const PeerPath* by = peer.FindPath(peer.active_path);
  if (peer.established() && by != nullptr) {
    SendControl(peer, peer.active_path, by->route, {ControlMessage::Type::kClose}, now_ns);
  }
  EndAttempt(peer);
  DropSession(peer, why);
}

void Peers::Close(TimeNs now_ns) {
  for (auto& peer : peers_) {
    if (peer != nullptr) SayGoodbye(*peer, "this end stops", now_ns);
  }
  closed_ = true;
}

}  // namespace braid
