// Hostile datagrams into a server's Peers in the middle of a session and of a rekey. The first byte
// of the input chooses what they are: bytes as they come, changes to a valid message (with its MACs
// made anew, so that the change gets behind them), or whatever a peer that holds the keys may say.
// What does not authenticate is counted once and changes nothing; only a cookie may answer it.
#include <memory>
#include <optional>
#include <vector>

#include "slowpath/peers.h"
#include "support/fuzz_input.h"
#include "support/handshake_fuzzing.h"

namespace braid {
namespace {

using testing::Buffer;
using testing::Changed;
using testing::Check;
using testing::SameBeforeMacs;

constexpr TimeNs kNow = 1'000 * kSecondNs;

// Keeps what is sent, and frees at once what is retired.
class Host final : public PeerHost {
 public:
  void SendDatagram(const Route&, Bytes datagram) override {
    sent.emplace_back(datagram.begin(), datagram.end());
  }
  void Tell(const Command& command) override {
    ++commands;
    if (command.type == Command::Type::kAddKeypair) ++keypairs;
    if (command.type == Command::Type::kRemoveKeypair) --keypairs;
    Check(keypairs >= 0 && keypairs <= 3);
  }
  void Retire(std::unique_ptr<const Keypair> keypair) override { Check(keypair != nullptr); }
  void RunJob(std::unique_ptr<HandshakeJob> job) override { jobs.push_back(std::move(job)); }
  PeerActivity ActivityOf(PeerSlot) override { return {}; }
  uint64_t NextHandshakeCounter() override { return ++counter; }
  LinkMtu LinkMtuOf(const Route&) override { return {1432, 68}; }
  void ResolveAnew(const Route&) override {}
  void OnSessionMtu(PeerSlot, uint16_t mtu) override { Check(mtu >= kMinMtu); }
  void OnSession(PeerSlot, bool) override {}
  void OnPathUsable(PeerSlot, uint8_t, bool) override {}
  void Report(const std::string&) override {}
  void ReportProblem(const std::string&) override {}

  void RunJobsFor(Peers& peers) {
    while (!jobs.empty()) {
      std::unique_ptr<HandshakeJob> job = std::move(jobs.back());
      jobs.pop_back();
      job->Run();
      peers.OnJobDone(std::move(job), kNow);
    }
  }

  std::vector<Buffer> sent;
  std::vector<std::unique_ptr<HandshakeJob>> jobs;
  uint64_t commands = 0;
  int keypairs = 0;
  uint64_t counter = 0;
};

PeersOptions OptionsFor(Role role, uint8_t private_key) {
  PeersOptions options;
  options.role = role;
  options.identity = Identity::FromPrivate(Key{private_key});
  options.aeads = ChooseAeads("sodium").value();
  options.ciphers = {Cipher::kChaCha20Poly1305};
  options.rekey_after_ns = kSecondNs;
  return options;
}

// A client and a server with a session; the client's next initiation and a sealed packet of it are
// on their way.
PeerKeys KeysOf(const Peers& end, const PeerConfig& peer) {
  return PeerKeys::Create(end.options().identity, peer.public_key, Key{3}).value();
}

struct World {
  const Route client_at{Endpoint::Parse("192.0.2.10:40000").value(), {}, 0};
  const Route server_at{Endpoint::Parse("198.51.100.1:7700").value(), {}, 0};
  Host client_host, server_host;
  Peers client{OptionsFor(Role::kClient, 1), client_host};
  Peers server{OptionsFor(Role::kServer, 2), server_host};
  TimeNs now_ns = kNow;
  Buffer initiation, sealed, opened;
  LaneSender sender;  // goes on as the client

  World() {
    PeerConfig config;
    config.name = "client";
    config.public_key = client.options().identity.public_key;
    Check(server.Add(config, KeysOf(server, config), 0).ok());
    config.name = "server";
    config.public_key = server.options().identity.public_key;
    Check(client.Add(config, KeysOf(client, config), 0).ok());
    client.AddPath(0, "link");
    client.SetPathRoute(0, 0, server_at, now_ns);
    client.Tick(now_ns);
    Deliver(client_host, server, client_at);
    Deliver(server_host, client, server_at);
    opened = client_host.sent.at(0);
    Deliver(client_host, server, client_at);
    Deliver(server_host, client, server_at);
    Check(client_peer().established() && server_peer().established());
    now_ns += 2 * kSecondNs;
    client.Tick(now_ns);
    for (const Buffer& datagram : client_host.sent) {
      (datagram[3] == static_cast<uint8_t>(Kind::kInitiation) ? initiation : sealed) = datagram;
    }
    Check(!initiation.empty() && !sealed.empty());
    sender = client_peer().sender;
  }

  // With the handshakes that it leads to.
  bool Take(Peers& to, MutableBytes datagram, const Route& back, TimeNs at_ns) {
    const bool stray = to.OnDatagram(datagram, back, at_ns);
    (&to == &server ? server_host : client_host).RunJobsFor(to);
    return stray;
  }

  void Deliver(Host& from, Peers& to, const Route& back) {
    const std::vector<Buffer> sent = std::exchange(from.sent, {});
    for (Buffer datagram : sent) Take(to, datagram, back, kNow);
  }

  const Peer& client_peer() const { return *client.all()[0]; }
  const Peer& server_peer() const { return *server.all()[0]; }

  uint64_t Drops() const {
    uint64_t drops = 0;
    for (size_t i = 0; i < kDropReasons; ++i) drops += server.drops().Get(static_cast<Drop>(i));
    return drops;
  }
};

struct Snapshot {
  explicit Snapshot(const World& world)
      : previous(world.server_peer().previous.get()),
        current(world.server_peer().current.get()),
        next(world.server_peer().next.get()),
        generation(world.server_peer().generation),
        counter(world.server_peer().greatest_counter),
        sequence(world.server_peer().sender.sequence()),
        commands(world.server_host.commands),
        indices(world.server.indices_in_use()),
        paths(world.server_peer().paths.size()),
        mtu(world.server_peer().mtu),
        route(world.server_peer().paths[0].route),
        candidate(world.server_peer().paths[0].source.candidate()) {}
  bool operator==(const Snapshot&) const = default;

  const Keypair *previous, *current, *next;
  uint64_t generation, counter, sequence, commands;
  size_t indices, paths;
  uint16_t mtu;
  Route route, candidate;
};

std::unique_ptr<World> world;

void ExpectRefused(Buffer datagram, const Route& from) {
  const Snapshot before(*world);
  const uint64_t drops = world->Drops();
  const bool initiation =
      datagram.size() > 3 && datagram[3] == static_cast<uint8_t>(Kind::kInitiation);
  const size_t bytes = datagram.size();
  world->server_host.sent.clear();
  const bool stray = world->Take(world->server, datagram, from, world->now_ns);
  Check(Snapshot(*world) == before);
  Check(world->Drops() == drops + (stray ? 0 : 1));
  for (const Buffer& answer : world->server_host.sent) {
    Check(initiation && answer[3] == static_cast<uint8_t>(Kind::kCookie) && answer.size() < bytes);
  }
  Check(world->server_host.sent.size() <= 1);
}

void MakeMacsAnew(Buffer& message) {
  if (message.size() < kHeaderBytes + kMacsBytes) return;
  MacStamper stamper(world->server.options().identity.public_key);
  stamper.AddMacs(message, 1, world->now_ns);
}

// Somebody who holds the keys may end the session or move it, and may not do more.
void SayAuthentically(Bytes input) {
  if (input.size() < 3) return;
  const auto kind = static_cast<Kind>(static_cast<uint8_t>(Kind::kData) + input[0] % 3);
  const auto path = static_cast<uint8_t>(input[1]);
  const Bytes plain = input.subspan(3, std::min<size_t>(input.size() - 3, 1500));
  // A path that no packet can have would be past the end of the sender's own counters.
  if ((path & kPathIdMask) >= kMaxPaths) return;
  Check(!world->sender.Prepare(*world->client_peer().current, kSlowLane, world->now_ns));
  Buffer datagram(plain.size() + kSealOverheadBytes);
  world->sender.Seal(kind, path, input[2] & kKnownFlags, plain, datagram.data());
  world->server_host.sent.clear();
  Check(!world->Take(world->server, datagram, world->client_at, world->now_ns));
  Check(world->server_host.sent.size() <= 2);
  Check(world->server_peer().paths.size() <= kMaxPaths);
  world->server.Tick(world->now_ns);
  if (!world->server_peer().established()) Check(world->server_host.keypairs == 0);
  world = nullptr;
}

void RunOne(uint8_t choice, Bytes input) {
  if (world == nullptr) world = std::make_unique<World>();
  const bool macs = (choice & 0x80) != 0;
  const Route from = (choice & 0x40) != 0 ? world->client_at : world->server_at;
  Buffer message;
  switch (choice & 7) {
    case 0:
      message.assign(input.begin(), input.end());
      break;
    case 1:
      message = Changed(world->initiation, input);
      if (SameBeforeMacs(message, world->initiation)) return;  // the valid one, or its MACs only
      break;
    case 2:
      message = Changed(world->sealed, input);
      if (message == world->sealed) return;
      break;
    case 3:
      message = Changed(world->opened, input);
      break;
    case 4:
      return SayAuthentically(input);
    default:  // sealed by nobody, for the session
      message.assign(input.begin(), input.end());
      if (message.size() < kHeaderBytes) return;
      StoreBe16(message.data(), kMagic);
      message[2] = kWireVersion;
      StoreBe32(&message[4], world->server_peer().current->local_index);
      message[8] = kSlowLane;
      break;
  }
  if (macs) MakeMacsAnew(message);
  if (message == world->sealed || message == world->initiation) return;
  ExpectRefused(std::move(message), from);
}

}  // namespace
}  // namespace braid

extern "C" int LLVMFuzzerInitialize(int*, char***) {
  braid::testing::CountInsteadOfDrawing();
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size > 0) braid::RunOne(data[0], braid::Bytes(data + 1, size - 1));
  return 0;
}
