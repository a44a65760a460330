// The peers and their sessions: who initiates when, which keys are previous, current and next,
// which path carries the traffic, and whether the other end is still there. Time, datagrams and
// jobs that have run go in; datagrams, commands to the workers and jobs to run come out: no I/O
// here. One thread.
#pragma once

#include <array>
#include <deque>
#include <memory>
#include <optional>
#include <queue>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/counters.h"
#include "fastpath/control.h"
#include "fastpath/lane.h"
#include "fastpath/mailbox.h"
#include "fastpath/path_set.h"
#include "slowpath/config.h"
#include "slowpath/flood_guard.h"
#include "slowpath/handshake.h"
#include "slowpath/handshake_job.h"
#include "slowpath/mtu_search.h"

namespace braid {

// Keys live so long at most; the sealing code itself refuses later (WireGuard's REJECT_AFTER_TIME).
inline constexpr DurationNs kSealUntilNs = 180 * kSecondNs;
// What was sealed just before still opens.
inline constexpr DurationNs kOpenUntilNs = 190 * kSecondNs;

// What the workers have seen of a peer.
struct PeerActivity {
  TimeNs last_rx_ns = 0;
  TimeNs last_tx_ns = 0;
  uint64_t tx_packets = 0;
  std::array<uint64_t, kMaxPaths> rx_datagrams{};  // by path
};

// Everything that peers need done around them. Implemented by the daemon, and by tests.
class PeerHost {
 public:
  // Sends through the slow path's socket of the route's group.
  virtual void SendDatagram(const Route& route, Bytes datagram) = 0;
  // To every worker, in order.
  virtual void Tell(const Command& command) = 0;
  // Frees it once every worker has carried out what it was told before.
  virtual void Retire(std::unique_ptr<const Keypair> keypair) = 0;
  // Runs it on whichever thread, and then gives it to Peers::OnJobDone; in any order, at any time
  // but within this call. It may also be lost.
  virtual void RunJob(std::unique_ptr<HandshakeJob> job) = 0;
  virtual PeerActivity ActivityOf(PeerSlot peer) = 0;
  virtual uint64_t NextHandshakeCounter() = 0;
  // The largest inner packet that the link takes over which this route leads, and all that goes
  // around one, outer headers included. A size of 0 where that is not known.
  struct LinkMtu {
    uint16_t mtu = 0;
    int overhead_bytes = 0;
  };
  virtual LinkMtu LinkMtuOf(const Route& route) = 0;
  // Nothing has come along it for a while, so its next hop may have been asked for in vain.
  virtual void ResolveAnew(const Route& route) = 0;
  // A session's largest inner packet: agreed on, and what all of its paths carry.
  virtual void OnSessionMtu(PeerSlot peer, uint16_t mtu) = 0;
  // A session has begun, or ended; a path to the peer has become usable, or is so no more.
  virtual void OnSession(PeerSlot peer, bool established) = 0;
  virtual void OnPathUsable(PeerSlot peer, uint8_t path, bool usable) = 0;
  // For the log: one line for a change that an operator cares about, or has to do something about.
  virtual void Report(const std::string& line) = 0;
  virtual void ReportProblem(const std::string& line) = 0;

 protected:
  ~PeerHost() = default;
};

struct PeersOptions {
  Role role = Role::kClient;
  Identity identity;
  AeadSuite aeads;
  std::vector<Cipher> ciphers;  // in order of preference
  int lanes = kDefaultLanes;
  uint16_t mtu = kMinMtu;  // the largest that any path may carry
  bool answers_probes = true;
  bool sends_parity = false;  // of bonds, which is longer than the packets that it is of
  int workers = 1;
  size_t max_peers = kMaxPeers;
  DurationNs rekey_after_ns = 120 * kSecondNs;
  uint64_t rekey_after_packets = uint64_t{1} << 36;
};

// The pings and probes of a path that may still be answered. Each has a token of its own, so that
// an answer tells how long it took also when others before it were lost.
class PathPings {
 public:
  // The token to send.
  uint64_t Add(uint64_t token, TimeNs now_ns) {
    pings_[next_++ % pings_.size()] = {token, now_ns};
    return token;
  }
  // When the ping with this token left; nothing when there is none.
  std::optional<TimeNs> SentAt(uint64_t token) const {
    for (const Ping& ping : pings_) {
      if (ping.sent_ns != 0 && ping.token == token) return ping.sent_ns;
    }
    return std::nullopt;
  }
  void Forget() { pings_ = {}; }

 private:
  struct Ping {
    uint64_t token = 0;
    TimeNs sent_ns = 0;  // 0: none
  };
  std::array<Ping, 8> pings_{};
  size_t next_ = 0;
};

// One way to a peer, as the slow path keeps it.
struct PeerPath {
  bool exists = false;  // else there is no path of this id
  std::string name;
  Route route;           // remote unset: not known (yet), or the path has no link now
  SourceTracker source;  // of the slow lane
  std::optional<MacStamper> stamper;
  PathPings pings;
  bool ping_under_way = false;
  TimeNs next_ping_ns = 0;
  int unanswered_pings = 0;
  TimeNs heard_ns = 0;           // the last authentic packet over it
  uint64_t heard_sequence = 0;   // the newest of the slow lane that came over it
  uint64_t rx_datagrams = 0;     // of the workers, when they were last looked at
  std::optional<double> rtt_ms;  // smoothed
  DurationNs least_rtt_ns = 0;   // as far as pings and probes tell; 0: nothing does
  bool up = false;
  uint16_t link_mtu = 0;  // what its link takes; 0: not known
  MtuSearch mtu_search;   // what it carries
  BondPathOptions options;
  bool told_usable = false;  // to the workers
  bool told_far = false;
  bool refused = false;      // for carrying too little: the workers do not have it
  // Whether large packets get through, as far as traffic tells.
  TimeNs stalled_since_ns = 0;
  uint64_t stalled_tx_packets = 0;
  TimeNs suspected_ns = 0;

  bool usable() const { return up && !refused; }
  // The largest inner packet, as far as is known; 0: nothing is.
  uint16_t mtu() const { return mtu_search.mtu() != 0 ? mtu_search.mtu() : link_mtu; }
};

inline constexpr char kCarriesTooLittle[] =
    "does not carry inner packets of 1280 bytes, the least that IPv6 allows, and is not used: "
    "raise "
    "the MTU of its links";

// A path that this end has no more, until the other end has said that it knows.
struct GonePath {
  uint8_t id = 0;
  uint64_t token = 0;
  TimeNs next_ns = 0;     // when it is told (again)
  TimeNs give_up_ns = 0;  // by then the other end has noticed by itself
};

// How a client's peer is to send, by command, until it has said that it does so.
struct WantedMode {
  BondingMode mode = BondingMode::kStripe;
  uint64_t token = 0;
  TimeNs next_ns = 0;  // when it is told (again)
  bool taken = false;
};

// What has become of handshakes since the start, with all peers.
struct HandshakeCounts {
  uint64_t begun = 0;      // initiations that this end sent, or that came and were let in
  uint64_t completed = 0;  // both ends hold the keys, and this one knows
  uint64_t refused = 0;    // initiations that came and were not answered; their drops tell why
  uint64_t timed_out = 0;  // of those begun: the other end did not answer, or not use the keys
};

// In a handshake's features: the sender takes the bonding mode that the other end wants.
inline constexpr uint32_t kFeatureMode = 1 << 4;

struct Peer {
  PeerSlot slot = kNoPeer;
  PeerConfig config;
  std::shared_ptr<const PeerKeys> keys;
  bool initiates = false;       // has somewhere to send to, when there is a path
  std::vector<PeerPath> paths;  // by path id; some may not exist
  uint8_t active_path = 0;
  std::vector<GonePath> gone_paths;  // of a client
  // Of a server: what came over a path before this sequence is of a path that is gone.
  std::array<uint64_t, kMaxPaths> gone_before{};
  uint32_t features = 0;                  // of the other end, as it said in the last handshake
  std::optional<WantedMode> wanted_mode;  // of a client
  // Of a server: the mode that the client wants to be sent to in, and what said so.
  std::optional<BondingMode> asked_mode;
  uint64_t asked_mode_sequence = 0;

  // Initiating.
  std::optional<InitiatorHandshake> attempt;
  uint32_t attempt_index = 0;
  uint8_t attempt_path = 0;
  int attempts = 0;            // since the last success
  TimeNs next_attempt_ns = 0;  // 0: none wanted
  bool attempt_had_cookie = false;
  bool retry_same_path = false;  // a cookie came, which is bound to the path

  // Responding.
  uint64_t greatest_counter = 0;
  Route initiation_route;  // of the handshake that gave `next`
  uint8_t initiation_path = 0;

  std::unique_ptr<const Keypair> previous;
  std::unique_ptr<const Keypair> current;
  std::unique_ptr<const Keypair> next;  // of a responder: not used before the peer has
  bool initiated_current = false;
  bool confirmed_current = false;  // of an initiator: the responder has answered under it
  TimeNs established_ns = 0;
  uint64_t packets_at_handshake = 0;
  uint16_t agreed_mtu = 0;
  uint16_t mtu = 0;             // what is agreed and all usable paths carry
  uint64_t generation = 0;      // of the peer's counters
  bool completed_once = false;  // the peer holds something of our counters

  LaneSender sender;  // of the slow lane
  LaneReceiver receiver;

  TimeNs due_ns = 0;  // in the queue of those that time brings something; 0: not there

  bool established() const { return current != nullptr; }
  DurationNs keepalive_ns() const {
    return static_cast<DurationNs>(config.keepalive_ms) * kMillisecondNs;
  }
  const PeerPath* FindPath(size_t id) const {
    return id < paths.size() && paths[id].exists ? &paths[id] : nullptr;
  }
  PeerPath* FindPath(size_t id) { return const_cast<PeerPath*>(std::as_const(*this).FindPath(id)); }
  size_t PathCount() const;
};

class Peers {
 public:
  Peers(PeersOptions options, PeerHost& host);
  ~Peers();

  // A client's peers are reached over its paths, which are to be added for each; a server's come in
  // over path ids that they choose. ResourceExhausted: there is no room.
  absl::StatusOr<PeerSlot> Add(const PeerConfig& config, PeerKeys keys, TimeNs now_ns);
  // Tells the peers that their sessions end, and forgets them.
  void Remove(const std::vector<PeerSlot>& peers, TimeNs now_ns);
  // Everything but the keys.
  void SetConfig(PeerSlot peer, const PeerConfig& config) { peers_[peer]->config = config; }
  // How many more there is room for.
  size_t room(TimeNs now_ns) const;

  // The paths of a client, which are the same towards all peers.
  void AddPath(uint8_t path, const std::string& name, const BondPathOptions& options = {});
  void AddPathTo(PeerSlot peer, uint8_t path, const std::string& name,
                 const BondPathOptions& options);
  void SetPathOptions(uint8_t path, const BondPathOptions& options);
  // Where it leads, once there is a link and the name was resolved.
  void SetPathRoute(PeerSlot peer, uint8_t path, const Route& route, TimeNs now_ns);
  // It has no link now.
  void SuspendPath(uint8_t path, TimeNs now_ns);
  // It may not be used any more, though its link is there. A peer that is reached over no other
  // path is told that the session ends, or it would go on sending here.
  void ForbidPath(uint8_t path, TimeNs now_ns);
  // For good: the id may come to mean another path, once that may be.
  void RemovePath(uint8_t path, TimeNs now_ns);
  // No peer holds anything of an earlier path of this id.
  bool MayUsePath(uint8_t path) const;
  // The network has changed: every path is pinged at once, so that the other end learns of another
  // source address, and this one of a dead path.
  void PingPaths(TimeNs now_ns);
  // What is known of the MTU of every path is looked at again: that of a link has changed.
  void SearchMtus(TimeNs now_ns);
  // By command. A client's holds for both directions; a server's own counts again for clients that
  // have asked for another.
  void SetMode(BondingMode mode, TimeNs now_ns);
  // Whether bonds send parity, which the MTU has to leave room for.
  void SetSendsParity(bool sends_parity);
  // Traffic over this path seems to go nowhere though pings are answered.
  void SuspectBlackHole(PeerSlot peer, uint8_t path, TimeNs now_ns);

  // A datagram that came to a slow-lane socket, or that a worker passed on. `datagram` is opened in
  // place. True when it belongs to a worker's lane after all.
  bool OnDatagram(MutableBytes datagram, const Route& back, TimeNs now_ns);
  void OnEvent(const Event& event, TimeNs now_ns);
  // A job that the host was given has run.
  void OnJobDone(std::unique_ptr<HandshakeJob> job, TimeNs now_ns);

  // Everything that time brings. Every kTickNs. It looks only at peers for which something is due:
  // those that this end initiates to or that come over several paths each time, and any other when
  // the first of its keys ends. So idle clients cost nothing here, however many they are.
  static constexpr DurationNs kTickNs = 100 * kMillisecondNs;
  void Tick(TimeNs now_ns);

  // Tells every peer that this end goes away. Nothing is sent or taken from then on.
  void Close(TimeNs now_ns);

  // In the order in which they came.
  const std::vector<const Peer*>& all() const { return all_; }
  const Peer* Find(PeerSlot slot) const {
    return slot < peers_.size() ? peers_[slot].get() : nullptr;
  }
  const DropCounters& drops() const { return drops_; }
  const HandshakeCounts& handshakes() const { return handshakes_; }
  // Of keypairs and of attempts.
  size_t indices_in_use() const { return by_index_.size(); }
  const PeersOptions& options() const { return options_; }

  // At most kMaxHandshakeJobs.
  size_t jobs_under_way() const { return jobs_under_way_; }

  // A peer whose next attempt wants its endpoint's name resolved again.
  static bool WantsResolving(const Peer& peer);

 private:
  // Handshakes.
  void StartAttempt(Peer& peer, TimeNs now_ns);
  void OnInitiation(Bytes datagram, const Route& back, TimeNs now_ns);
  void RefuseInitiation(Drop reason);
  // Whether the initiation that was read is to be answered, and with what.
  bool DecideAnswer(HandshakeJob& job);
  void InstallNext(const HandshakeJob& job, TimeNs now_ns);
  void OnResponse(Bytes datagram, const Route& back, TimeNs now_ns);
  void OnCookie(Bytes datagram, TimeNs now_ns);
  std::unique_ptr<const Keypair> MakeKeypair(Peer& peer, const TransportRoots& roots,
                                             uint32_t local_index, uint32_t remote_index,
                                             uint8_t cipher, uint8_t lanes, uint32_t features,
                                             TimeNs now_ns);
  void Announce(Peer& peer, const Keypair& keypair);
  void Withdraw(Peer& peer, std::unique_ptr<const Keypair>& keypair);
  void UseForSending(Peer& peer, TimeNs now_ns);
  void PromoteNext(Peer& peer, TimeNs now_ns);
  void DropSession(Peer& peer, const char* why);
  void SayGoodbye(Peer& peer, const char* why, TimeNs now_ns);
  uint32_t FreshIndex(PeerSlot slot);
  uint32_t Features(const Peer& peer) const;
  uint8_t OfferedCiphers() const;
  uint8_t PickCipher(uint8_t offered) const;
  uint16_t AgreedMtu(uint16_t theirs) const;

  // The slow lane.
  void OnSealed(const Header& header, MutableBytes datagram, const Route& back, TimeNs now_ns);
  void OnControl(Peer& peer, uint8_t path_id, const Header& header, const Keypair& keypair,
                 const Route& back, Bytes plain, TimeNs now_ns);
  void OnPathGone(Peer& peer, uint8_t path_id, uint64_t sequence);
  void OnMode(Peer& peer, BondingMode mode, uint64_t sequence);
  void SendInMode(Peer& peer, std::optional<BondingMode> mode);
  void OnPong(Peer& peer, PeerPath& path, uint8_t path_id, uint64_t token, TimeNs now_ns);
  void NoteRoundTrip(Peer& peer, uint8_t path_id, DurationNs rtt_ns);
  void OnClose(Peer& peer, uint64_t keypair_id);
  void SendControl(Peer& peer, uint8_t path_id, const Route& route, const ControlMessage& message,
                   TimeNs now_ns);
  void SendPlain(Peer& peer, uint8_t path_id, const Route& route, Bytes plain, TimeNs now_ns);
  void SendProbe(Peer& peer, uint8_t path_id, const MtuSearch::Probe& probe, TimeNs now_ns);
  void SendPing(Peer& peer, uint8_t path_id, TimeNs now_ns);
  PeerPath& PathOf(Peer& peer, uint8_t path_id);
  void ForgetPath(Peer& peer, uint8_t path_id);
  void TakeOnlyPath(Peer& peer);
  void TellPathGone(Peer& peer, uint8_t path_id, TimeNs now_ns);
  void MoveTo(Peer& peer, uint8_t path_id, const Route& route, TimeNs now_ns);
  void TellUsable(Peer& peer);
  void TellPathUp(Peer& peer, uint8_t path_id);
  void ChoosePath(Peer& peer);
  // The MTU of a path's link, and a search for what it carries beyond that.
  void SearchMtu(Peer& peer, uint8_t path_id, TimeNs now_ns);
  void SearchMtus(Peer& peer, TimeNs now_ns);
  uint16_t SessionMtu(const Peer& peer) const;
  uint16_t RoomForParity(const Peer& peer) const;
  // After anything that they depend on has changed: which paths carry enough, and the session's
  // MTU.
  void UpdateMtu(Peer& peer);
  void RefuseOrTake(Peer& peer, uint8_t path_id);
  void TellMtu(Peer& peer);
  bool AnswersProbes(const Peer& peer) const;
  void EndAttempt(Peer& peer);
  std::optional<PeerSlot> TakeSlot(TimeNs now_ns);
  const std::shared_ptr<const PeerDirectory>& Directory();
  // Of a job; nullptr when that peer is no more.
  Peer* PeerOf(const HandshakeJob& job);

  // Time.
  void TickPeer(Peer& peer, TimeNs now_ns);
  // When something is due next, as things stand; kNever.
  TimeNs DueOf(const Peer& peer) const;
  // After what may have brought that forward.
  void Schedule(Peer& peer);
  void TickHandshakes(Peer& peer, const PeerActivity& activity, TimeNs now_ns);
  void NoteHeard(Peer& peer, const PeerActivity& activity);
  void TickPaths(Peer& peer, const PeerActivity& activity, TimeNs now_ns);
  void TickGonePaths(Peer& peer, TimeNs now_ns);
  void TickWantedMode(Peer& peer, TimeNs now_ns);
  void TickMtus(Peer& peer, TimeNs now_ns);
  void WatchForBlackHole(Peer& peer, const PeerActivity& activity, TimeNs now_ns);
  void TickKeys(Peer& peer, TimeNs now_ns);

  struct IndexEntry {
    Peer* peer;
    const Keypair* keypair;  // nullptr: of an attempt
  };

  PeersOptions options_;
  PeerHost& host_;
  CookieChecker cookies_;
  FloodGuard flood_;
  std::shared_ptr<const PeerDirectory>
      directory_;  // shared with the jobs; nullptr: to be made anew
  size_t jobs_under_way_ = 0;
  std::vector<std::unique_ptr<Peer>> peers_;  // by slot; nullptr: nobody's
  std::vector<const Peer*> all_;
  // What workers have to do with the last peer of a slot is over by then.
  struct VacantSlot {
    PeerSlot slot;
    TimeNs free_ns;
  };
  std::deque<VacantSlot> vacant_slots_;  // those that are free first in front
  std::optional<BondingMode> mode_by_command_;  // of SetMode(); also of peers that come later
  std::unordered_map<uint32_t, IndexEntry> by_index_;
  // The earliest first. Where a peer came forward, its entries for later are void: only the one
  // that its due_ns tells counts.
  using Due = std::pair<TimeNs, PeerSlot>;
  std::priority_queue<Due, std::vector<Due>, std::greater<>> due_;
  std::vector<PeerSlot> due_now_;  // of one tick
  uint64_t next_keypair_id_ = 1;
  bool closed_ = false;
  DropCounters drops_;
  HandshakeCounts handshakes_;
};

}  // namespace braid
