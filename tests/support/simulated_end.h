// One end of tunnels on a simulated network: real Peers, and in the place of the daemon and its
// workers a host that does what they would with one lane of each peer, and that holds Peers to the
// order of its commands: a keypair is announced once, used only while it is known, withdrawn once,
// and retired after that. A retired keypair is freed as early as the workers could let go of it.
#pragma once

#include <gtest/gtest.h>

#include <deque>
#include <map>
#include <memory>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "slowpath/peers.h"
#include "support/simulated_network.h"

namespace braid::testing {

class SimulatedEnd final : public PeerHost {
 public:
  // What a worker knows of a peer.
  struct Lane {
    const Keypair* send = nullptr;
    std::array<Route, kMaxPaths> routes;
    uint8_t path = 0;
    bool has_path = false;
    std::array<bool, kMaxPaths> up{};
    std::array<bool, kMaxPaths> far{};
    std::array<BondPathOptions, kMaxPaths> path_options{};
    std::optional<BondingMode> mode;
    uint16_t mtu = 0;
    LaneSender sender;
    LaneReceiver receiver;
    PeerActivity activity;
    uint64_t opened = 0;
    std::array<uint64_t, kMaxPaths> opened_on{};
    uint64_t refused = 0;
    TimeNs asked_ns = 0;
  };

  SimulatedEnd(SimulatedNetwork& network, Role role, std::vector<Endpoint> at)
      : addresses(std::move(at)), network_(network) {
    options.role = role;
    options.identity = Identity::Generate();
    options.aeads = ChooseAeads("auto").value();
    options.ciphers = {Cipher::kChaCha20Poly1305};
  }
  ~SimulatedEnd() { Kill(); }
  SimulatedEnd(const SimulatedEnd&) = delete;
  SimulatedEnd& operator=(const SimulatedEnd&) = delete;

  // A peer from the next start on. A client has a path for each of its addresses, which all lead to
  // `remotes`: one for each, or one for all.
  void Know(const SimulatedEnd& other, const std::vector<Endpoint>& remotes = {}) {
    Known known;
    known.config.name = "peer" + std::to_string(known_.size());
    known.config.public_key = other.options.identity.public_key;
    known.config.keepalive_ms = keepalive_ms;
    known.remotes = remotes;
    known_.push_back(known);
  }

  PeerKeys KeysOf(const PeerConfig& peer) const {
    return PeerKeys::Create(options.identity, peer.public_key, preshared_key).value();
  }

  // The process begins: nothing of an earlier one is left but the keys and the counter on disk.
  void Start() {
    Kill();
    for (size_t group = 0; group < addresses.size(); ++group) Listen(group);
    peers_ = std::make_unique<Peers>(options, static_cast<PeerHost&>(*this));
    lanes.assign(known_.size() + 1, {});  // one may come later
    for (size_t slot = 0; slot < known_.size(); ++slot) {
      const Known& known = known_[slot];
      ASSERT_TRUE(peers_->Add(known.config, KeysOf(known.config), network_.now_ns()).ok());
    }
    for (size_t id = 0; options.role == Role::kClient && id < addresses.size(); ++id) {
      peers_->AddPath(static_cast<uint8_t>(id), "link" + std::to_string(id));
    }
    for (size_t slot = 0; slot < known_.size(); ++slot) {
      const Known& known = known_[slot];
      for (size_t id = 0; !known.remotes.empty() && id < addresses.size(); ++id) {
        const Endpoint& remote = known.remotes[std::min(id, known.remotes.size() - 1)];
        peers_->SetPathRoute(static_cast<PeerSlot>(slot), static_cast<uint8_t>(id),
                             {remote, {}, static_cast<uint16_t>(id)}, network_.now_ns());
      }
    }
    Settle();
  }

  // The process is gone without a word.
  void Kill() {
    for (const Endpoint& address : addresses) network_.Detach(address);
    peers_.reset();
    retiring_.clear();
    announced_.clear();
    pending_.clear();
    jobs.clear();
    ids_.clear();
    retired_.clear();
  }

  // This end now speaks from `to`: another network, or a NAT that has forgotten it.
  void MoveAddress(size_t group, const Endpoint& to) {
    network_.Detach(addresses[group]);
    addresses[group] = to;
    Listen(group);
  }

  void Tick() {
    if (peers_ == nullptr) return;
    peers_->Tick(network_.now_ns());
    Settle();
  }
  void Close() {
    peers_->Close(network_.now_ns());
    Settle();
  }
  // The job at this place of `jobs` runs, and its result comes back.
  void RunJob(size_t place) {
    std::unique_ptr<HandshakeJob> job = std::move(jobs.at(place));
    jobs.erase(jobs.begin() + static_cast<ptrdiff_t>(place));
    job->Run();
    peers_->OnJobDone(std::move(job), network_.now_ns());
    Settle();
  }
  void On(const Event& event) {
    peers_->OnEvent(event, network_.now_ns());
    Settle();
  }

  // As if it had come over the network. True when it was taken to be a worker's.
  bool Deliver(std::vector<uint8_t> bytes, const Endpoint& from, uint16_t group = 0) {
    const bool stray = peers_->OnDatagram(bytes, {from, {}, group}, network_.now_ns());
    if (stray) OnLaneDatagram(bytes);
    Settle();
    return stray;
  }

  // An inner packet goes out. False where a worker would have had nothing to send it under.
  bool SendData(PeerSlot slot = 0) {
    if (peers_ == nullptr) return false;
    Lane& lane = lanes[slot];
    const TimeNs now_ns = network_.now_ns();
    if (lane.send == nullptr || now_ns >= lane.send->seal_until_ns) {
      if (lane.asked_ns == 0 || now_ns >= lane.asked_ns + kSecondNs) {
        lane.asked_ns = now_ns;
        On({.type = Event::Type::kNeedHandshake, .peer = slot});
      }
      return false;
    }
    if (!lane.has_path || !lane.routes[lane.path].remote.is_set()) return false;
    if (lane.sender.Prepare(*lane.send, 0, now_ns)) return false;
    const std::array<uint8_t, 64> plain{};
    std::array<uint8_t, plain.size() + kSealOverheadBytes> datagram;
    lane.sender.Seal(Kind::kData, lane.path, 0, plain, datagram.data());
    lane.activity.last_tx_ns = now_ns;
    ++lane.activity.tx_packets;
    const Route& route = lane.routes[lane.path];
    network_.Send(addresses[route.socket_group], route.remote, datagram);
    return true;
  }

  Peers& peers() { return *peers_; }
  const Peer& peer(PeerSlot slot = 0) const { return *peers_->Find(slot); }
  bool running() const { return peers_ != nullptr; }
  bool established(PeerSlot slot = 0) const { return running() && peer(slot).established(); }
  // The other end has answered under the current keys.
  bool confirmed(PeerSlot slot = 0) const {
    return established(slot) && peer(slot).confirmed_current;
  }

  uint64_t drops() const {
    uint64_t all = 0;
    for (size_t i = 0; i < kDropReasons; ++i) all += drops(static_cast<Drop>(i));
    return all;
  }
  uint64_t drops(Drop reason) const { return peers_->drops().Get(reason); }

  // Everything that an outsider must not be able to change.
  std::string Snapshot() const {
    std::ostringstream text;
    text << commands << ' ' << sent << ' ' << peers_->indices_in_use();
    for (const Peer* peer : peers_->all()) {
      text << "\n"
           << peer->config.name << ' ' << int{peer->active_path} << ' ' << peer->attempt.has_value()
           << ' ' << peer->attempt_index << ' ' << peer->attempts << ' ' << peer->next_attempt_ns
           << ' ' << peer->greatest_counter << ' ' << peer->generation << ' '
           << peer->established_ns << ' ' << peer->mtu << ' ' << peer->confirmed_current << ' '
           << peer->sender.sequence();
      for (const auto* keypair : {&peer->previous, &peer->current, &peer->next}) {
        text << ' ' << (*keypair == nullptr ? 0 : (*keypair)->id);
      }
      for (const PeerPath& path : peer->paths) {
        text << "\n  " << path.exists << ' ' << path.route.remote.ToString() << ' '
             << path.source.candidate().remote.ToString() << ' ' << path.heard_ns << ' ' << path.up
             << ' ' << path.unanswered_pings << ' ' << path.rtt_ms.value_or(0) << ' '
             << (path.stamper && path.stamper->HasCookie(network_.now_ns()));
      }
    }
    return text.str();
  }

  bool Reported(const std::string& what) const {
    for (const std::string& line : reports) {
      if (line.find(what) != std::string::npos) return true;
    }
    return false;
  }

  // PeerHost
  void SendDatagram(const Route& route, Bytes datagram) override {
    ++sent;
    ASSERT_LT(route.socket_group, addresses.size());
    ASSERT_TRUE(route.remote.is_set());
    network_.Send(addresses[route.socket_group], route.remote, datagram);
  }
  void Tell(const Command& command) override {
    ++commands;
    Lane& lane = lanes[command.peer];
    switch (command.type) {
      case Command::Type::kAddKeypair: {
        EXPECT_TRUE(ids_.insert(command.keypair->id).second) << "announced twice";
        const Announced announced{command.peer, command.keypair};
        EXPECT_TRUE(announced_.emplace(command.keypair->local_index, announced).second);
        EXPECT_LE(announced_.size(), 3 * known_.size());
        break;
      }
      case Command::Type::kSendUnder:
        EXPECT_TRUE(IsAnnounced(command.keypair)) << "keys that the workers do not have";
        lane.send = command.keypair;
        lane.mtu = command.mtu;
        break;
      case Command::Type::kRemoveKeypair:
        EXPECT_TRUE(IsAnnounced(command.keypair)) << "withdrawn, but not known";
        announced_.erase(command.keypair->local_index);
        if (lane.send == command.keypair) lane.send = nullptr;
        break;
      case Command::Type::kSetPath:
        ASSERT_LT(command.path, kMaxPaths);
        EXPECT_TRUE(command.route.remote.is_set());
        if (!lane.routes[command.path].remote.is_set()) lane.receiver.ForgetPath(command.path);
        lane.routes[command.path] = command.route;
        break;
      case Command::Type::kEndPath:
        ASSERT_LT(command.path, kMaxPaths);
        lane.routes[command.path] = {};
        lane.up[command.path] = false;
        break;
      case Command::Type::kEndPeer:
        for (const auto& [index, announced] : announced_) {
          EXPECT_NE(announced.peer, command.peer) << "gone while workers have keys of it";
        }
        lane = {};
        break;
      case Command::Type::kUsePath:
        ASSERT_LT(command.path, kMaxPaths);
        lane.path = command.path;
        lane.has_path = true;
        break;
      case Command::Type::kSetPathUp:
        ASSERT_LT(command.path, kMaxPaths);
        EXPECT_TRUE(lane.up[command.path] != command.up || lane.far[command.path] != command.far ||
                    !(lane.path_options[command.path] == command.path_options))
            << "said before";
        lane.up[command.path] = command.up;
        lane.far[command.path] = command.far;
        lane.path_options[command.path] = command.path_options;
        break;
      case Command::Type::kSetPeerMode:
        EXPECT_NE(lane.mode, command.mode) << "said before";
        lane.mode = command.mode;
        break;
      default:
        ADD_FAILURE() << "a command that is not of peers";
        break;
    }
  }
  void Retire(std::unique_ptr<const Keypair> keypair) override {
    ASSERT_NE(keypair, nullptr);
    EXPECT_FALSE(IsAnnounced(keypair.get())) << "retired before it was withdrawn";
    EXPECT_EQ(ids_.count(keypair->id), 1u) << "retired without having been announced";
    EXPECT_TRUE(retired_.insert(keypair->id).second) << "retired twice";
    retiring_.push_back(std::move(keypair));
  }
  void RunJob(std::unique_ptr<HandshakeJob> job) override { jobs.push_back(std::move(job)); }
  PeerActivity ActivityOf(PeerSlot slot) override {
    ++times_looked_at[slot];
    return lanes[slot].activity;
  }
  uint64_t NextHandshakeCounter() override {
    return counter = std::max(counter + 1, network_.now_ns() + wall_offset_ns);
  }
  LinkMtu LinkMtuOf(const Route& route) override {
    const auto found = link_mtus.find(route.socket_group);
    return {found == link_mtus.end() ? options.mtu : found->second, 68};
  }
  void ResolveAnew(const Route& route) override { resolved_anew.push_back(route); }
  void OnSessionMtu(PeerSlot slot, uint16_t mtu) override { EXPECT_EQ(lanes[slot].mtu, mtu); }
  void OnSession(PeerSlot slot, bool established) override {
    EXPECT_EQ(peer(slot).established(), established);
  }
  void OnPathUsable(PeerSlot slot, uint8_t path, bool usable) override {
    EXPECT_EQ(lanes[slot].up[path], usable) << "the workers know something else";
  }
  void Report(const std::string& line) override { reports.push_back(line); }
  void ReportProblem(const std::string& line) override { problems.push_back(line); }

  uint64_t keypairs_announced() const { return ids_.size(); }
  uint64_t keypairs_retired() const { return retired_.size(); }
  size_t keypairs_known() const { return announced_.size(); }

  std::vector<Endpoint> addresses;  // by socket group
  PeersOptions options;             // of the next start
  Key preshared_key{};
  int keepalive_ms = 2000;
  uint64_t counter = 0;  // as it is kept on disk
  uint64_t wall_offset_ns = 0;

  std::vector<Lane> lanes;  // by peer
  std::map<PeerSlot, uint64_t> times_looked_at;
  // Handshakes under way. Unless they are held they end in time for the next call.
  std::deque<std::unique_ptr<HandshakeJob>> jobs;
  bool hold_jobs = false;
  std::vector<Route> resolved_anew;
  std::vector<std::string> reports;
  std::vector<std::string> problems;
  std::map<uint16_t, uint16_t> link_mtus;  // by group, where it is not options.mtu
  uint64_t commands = 0;
  uint64_t sent = 0;

 private:
  struct Known {
    PeerConfig config;
    std::vector<Endpoint> remotes;  // none: the peer comes to us
  };
  struct Announced {
    PeerSlot peer;
    const Keypair* keypair;
  };

  void Listen(size_t group) {
    network_.Attach(addresses[group], [this, group](const Datagram& datagram) {
      if (peers_ != nullptr) Deliver(datagram.bytes, datagram.from, static_cast<uint16_t>(group));
    });
  }

  bool IsAnnounced(const Keypair* keypair) const {
    const auto found = announced_.find(keypair->local_index);
    return found != announced_.end() && found->second.keypair == keypair;
  }

  void OnLaneDatagram(MutableBytes datagram) {
    Header header;
    if (ReadHeader(datagram, header) != HeaderVerdict::kOk) return;
    const auto found = announced_.find(header.session);
    if (found == announced_.end()) return;
    const auto [slot, keypair] = found->second;
    Lane& lane = lanes[slot];
    LaneReceiver::Opened opened;
    if (header.lane != 0 ||
        lane.receiver.Open(*keypair, header, datagram, network_.now_ns(), opened)) {
      ++lane.refused;
      return;
    }
    ++lane.opened;
    const size_t path = header.path & kPathIdMask;
    ++lane.opened_on[path];
    ++lane.activity.rx_datagrams[path];
    lane.activity.last_rx_ns = network_.now_ns();
    if (!opened.first_of_key) return;
    pending_.push_back({.type = Event::Type::kOpened, .peer = slot, .keypair_id = keypair->id});
  }

  // After each call into Peers: the workers have passed all commands, and told what they saw.
  void Settle() {
    retiring_.clear();
    while (!hold_jobs && !jobs.empty()) RunJob(0);
    while (!pending_.empty()) {
      const Event event = pending_.front();
      pending_.pop_front();
      peers_->OnEvent(event, network_.now_ns());
      retiring_.clear();
    }
    EXPECT_EQ(ids_.size() - retired_.size(), announced_.size()) << "withdrawn, but not retired";
  }

  SimulatedNetwork& network_;
  std::vector<Known> known_;
  std::unique_ptr<Peers> peers_;
  std::map<uint32_t, Announced> announced_;  // by local index
  std::set<uint64_t> ids_;
  std::set<uint64_t> retired_;
  std::vector<std::unique_ptr<const Keypair>> retiring_;
  std::deque<Event> pending_;
};

}  // namespace braid::testing
