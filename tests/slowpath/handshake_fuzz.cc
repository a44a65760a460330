// Hostile bytes into everything that reads a handshake datagram. The first byte of the input
// chooses the reader and where the bytes come from: as they are, as changes to a valid message
// (with its mac1 made anew, so that the change gets behind it), or as the payload of a peer that
// holds keys.
#include <algorithm>
#include <vector>

#include "slowpath/cookie.h"
#include "slowpath/handshake.h"
#include "support/fuzz_input.h"
#include "support/handshake_fuzzing.h"

namespace braid {
namespace {

using testing::Buffer;
using testing::Changed;
using testing::Check;
using testing::SameBeforeMacs;

constexpr TimeNs kNow = 1'000 * kSecondNs;
constexpr uint32_t kIndex = 0x01020304;

// Two ends in the middle of a handshake, and the three messages that they expect.
struct World {
  const Identity client = Identity::FromPrivate(Key{1});
  const Identity server = Identity::FromPrivate(Key{2});
  const PeerKeys server_at_client = PeerKeys::Create(client, server.public_key, Key{3}).value();
  const PeerKeys client_at_server = PeerKeys::Create(server, client.public_key, Key{3}).value();
  const Endpoint source = Endpoint::Parse("10.20.1.1:40000").value();
  const InitiationPayload offer = {.sender_index = kIndex, .counter = 1, .lanes = 16};
  CookieChecker checker{server.public_key};
  MacStamper to_server{server.public_key};
  MacStamper to_client{client.public_key};
  InitiatorHandshake initiator = InitiatorHandshake::Create(client, server_at_client).value();
  Buffer initiation = Buffer(kInitiationBytes);
  Buffer response = Buffer(kResponseBytes);
  Buffer cookie = Buffer(kCookieReplyBytes);

  World() {
    Check(initiator.Write(0, offer, to_server, kNow, initiation).ok());
    auto responder = Receive(initiation);
    const ResponsePayload choice = {.sender_index = 7, .lanes = 16};
    Check(responder->Write(0, choice, to_client, kNow, response).ok());
    Check(checker.WriteCookie(initiation, source, kNow, cookie).ok());
  }

  absl::StatusOr<ResponderHandshake> Receive(Bytes datagram) const {
    return ResponderHandshake::Read(server, datagram, [&](const Key& key) -> const PeerKeys* {
      return key == client.public_key ? &client_at_server : nullptr;
    });
  }
};

void MakeMacsAnew(Buffer& message, MacStamper stamper) {
  if (message.size() >= kHeaderBytes + kMacsBytes) stamper.AddMacs(message, kIndex, kNow);
}

void ReadInitiation(World& world, const Buffer& message) {
  const auto read = world.Receive(message);
  Check(!read.ok() || SameBeforeMacs(message, world.initiation));
}

void ReadResponse(World& world, const Buffer& message) {
  InitiatorHandshake initiator = world.initiator;
  const auto read = initiator.Read(message);
  Check(read.ok() == !initiator.pending());
  Check(!read.ok() || SameBeforeMacs(message, world.response));
}

void ConsumeCookie(World& world, const Buffer& message) {
  MacStamper stamper = world.to_server;
  const bool consumed = stamper.ConsumeCookie(message, kNow).ok();
  Check(consumed == stamper.HasCookie(kNow));
  Buffer canonical = message;
  if (consumed) StoreBe32(canonical.data() + 4, 0);  // may name the sender's index
  Check(!consumed || canonical == world.cookie);
}

void CheckMacs(World& world, const Buffer& message) {
  const bool mac1 = world.checker.CheckMac1(message);
  const Admission admission = world.checker.Admit(message, world.source, true, kNow);
  Check(mac1 || admission == Admission::kRefused);
  Buffer cookie(kCookieReplyBytes);
  if (world.checker.WriteCookie(message, world.source, kNow, cookie).ok()) {
    Check(mac1 && message.size() > cookie.size());
  }
}

void ReadAny(World& world, const Buffer& message) {
  ReadInitiation(world, message);
  ReadResponse(world, message);
  ConsumeCookie(world, message);
  CheckMacs(world, message);
}

// The header, and `payload` sealed by somebody who holds the keys.
Buffer Sealed(HandshakeState& noise, const Header& header, Bytes payload) {
  Buffer message(kMaxHandshakeBytes + payload.size());
  WriteHeader(message.data(), header);
  noise.MixHash(Bytes(message).first(kHeaderBytes));
  const auto size = noise.WriteMessage(payload, MutableBytes(message).subspan(kHeaderBytes));
  message.resize(kHeaderBytes + size.value() + kMacsBytes);
  return message;
}

void ReadAuthenticInitiation(World& world, Bytes payload) {
  const auto prologue = HandshakePrologue();
  HandshakeState noise = HandshakeState::Create({.pattern = &HandshakePattern(),
                                                 .prologue = prologue,
                                                 .local_static = &world.client,
                                                 .remote_static = &world.server.public_key})
                             .value();
  const auto read = world.Receive(Sealed(noise, HandshakeHeader(Kind::kInitiation, 0, 0), payload));
  if (!read.ok()) return;
  const InitiationPayload& offer = read->initiation();
  Check(payload.size() >= kInitiationPayloadBytes && payload.size() <= kMaxHandshakePayloadBytes);
  Check(offer.sender_index != 0 && offer.ciphers != 0 && offer.lanes != 0);
}

void ReadAuthenticResponse(World& world, Bytes payload) {
  const auto prologue = HandshakePrologue();
  const Key psk = world.client_at_server.preshared_key;
  HandshakeState noise = HandshakeState::Create({.pattern = &HandshakePattern(),
                                                 .role = NoiseRole::kResponder,
                                                 .prologue = prologue,
                                                 .local_static = &world.server,
                                                 .preshared_key = &psk})
                             .value();
  const Bytes initiation = world.initiation;
  Buffer plain(kMaxHandshakePayloadBytes);
  noise.MixHash(initiation.first(kHeaderBytes));
  Check(noise
            .ReadMessage(
                initiation.subspan(kHeaderBytes, initiation.size() - kHeaderBytes - kMacsBytes),
                plain)
            .ok());
  InitiatorHandshake initiator = world.initiator;
  const auto read =
      initiator.Read(Sealed(noise, HandshakeHeader(Kind::kResponse, kIndex, 0), payload));
  Check(read.ok() == !initiator.pending());
  if (!read.ok()) return;
  Check(payload.size() >= kResponsePayloadBytes && payload.size() <= kMaxHandshakePayloadBytes);
  Check(read->response.cipher == kOfferChaCha20Poly1305);
  Check(read->response.lanes >= 1 && read->response.lanes <= world.offer.lanes);
}

World& TheWorld() {
  static World* const world = [] {
    testing::CountInsteadOfDrawing();
    return new World;
  }();
  return *world;
}

void RunOne(uint8_t choice, Bytes input) {
  World& world = TheWorld();
  const bool macs = (choice & 0x80) != 0;
  Buffer message;
  switch (choice & 7) {
    case 0:
      message.assign(input.begin(), input.end());
      if (macs) MakeMacsAnew(message, world.to_server);
      return ReadAny(world, message);
    case 1:
      message = Changed(world.initiation, input);
      if (macs) MakeMacsAnew(message, world.to_server);
      CheckMacs(world, message);
      return ReadInitiation(world, message);
    case 2:
      message = Changed(world.response, input);
      return ReadResponse(world, message);
    case 3:
      return ConsumeCookie(world, Changed(world.cookie, input));
    case 4:
      return ReadAuthenticInitiation(world, input.first(std::min<size_t>(input.size(), 2048)));
    case 5:
      return ReadAuthenticResponse(world, input.first(std::min<size_t>(input.size(), 2048)));
    default:
      return CheckMacs(world, Changed(world.initiation, input));
  }
}

}  // namespace
}  // namespace braid

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size > 0) braid::RunOne(data[0], braid::Bytes(data + 1, size - 1));
  return 0;
}
