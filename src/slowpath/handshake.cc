// Payloads, then the initiator's and the responder's side of the two messages.
#include "slowpath/handshake.h"

#include <algorithm>
#include <bit>
#include <string_view>
#include <utility>

namespace braid {
namespace {

constexpr std::string_view kPrologueLabel = "braid 1";

void WriteInitiationPayload(uint8_t* to, const InitiationPayload& payload) {
  StoreBe32(to, payload.sender_index);
  StoreBe64(to + 4, payload.counter);
  to[12] = payload.ciphers;
  to[13] = payload.lanes;
  StoreBe16(to + 14, payload.mtu);
  StoreBe32(to + 16, payload.features);
}

InitiationPayload ReadInitiationPayload(const uint8_t* from) {
  return {.sender_index = LoadBe32(from),
          .counter = LoadBe64(from + 4),
          .ciphers = from[12],
          .lanes = from[13],
          .mtu = LoadBe16(from + 14),
          .features = LoadBe32(from + 16)};
}

void WriteResponsePayload(uint8_t* to, const ResponsePayload& payload) {
  StoreBe32(to, payload.sender_index);
  to[4] = payload.cipher;
  to[5] = payload.lanes;
  StoreBe16(to + 6, payload.mtu);
  StoreBe32(to + 8, payload.features);
}

ResponsePayload ReadResponsePayload(const uint8_t* from) {
  return {.sender_index = LoadBe32(from),
          .cipher = from[4],
          .lanes = from[5],
          .mtu = LoadBe16(from + 6),
          .features = LoadBe32(from + 8)};
}

// Later versions may offer ciphers and features that are unknown here, so only what no version can
// mean is refused.
absl::Status CheckOffer(const InitiationPayload& offer) {
  if (offer.sender_index == 0) return absl::InvalidArgumentError("the initiation has no index");
  if (offer.ciphers == 0) return absl::InvalidArgumentError("the initiation offers no cipher");
  if (offer.lanes == 0) return absl::InvalidArgumentError("the initiation offers no lanes");
  return absl::OkStatus();
}

absl::Status CheckChoice(const InitiationPayload& offer, const ResponsePayload& choice) {
  if (choice.sender_index == 0) return absl::InvalidArgumentError("the response has no index");
  if (!std::has_single_bit(choice.cipher) || (choice.cipher & offer.ciphers) == 0) {
    return absl::InvalidArgumentError("the response chooses a cipher that was not offered");
  }
  if (choice.lanes == 0 || choice.lanes > offer.lanes) {
    return absl::InvalidArgumentError("the response chooses lanes that were not offered");
  }
  return absl::OkStatus();
}

absl::Status CheckRoom(uint8_t path_id, MutableBytes out, size_t needed) {
  if ((path_id & ~kPathIdMask) != 0) return absl::InvalidArgumentError("the path id has six bits");
  if (out.size() < needed) return absl::InvalidArgumentError("no room for a handshake message");
  return absl::OkStatus();
}

bool IsSize(Bytes datagram, size_t frame_bytes, size_t payload_bytes) {
  return datagram.size() >= frame_bytes + payload_bytes &&
         datagram.size() <= frame_bytes + kMaxHandshakePayloadBytes;
}

Bytes NoiseMessage(Bytes datagram) {
  return datagram.subspan(kHeaderBytes, datagram.size() - kHeaderBytes - kMacsBytes);
}

// Header, then the Noise message around `payload`; `datagram` is as large as both with the MACs.
absl::Status Seal(HandshakeState& noise, const Header& header, Bytes payload,
                  MutableBytes datagram) {
  WriteHeader(datagram.data(), header);
  noise.MixHash(datagram.first(kHeaderBytes));
  const size_t size = datagram.size() - kHeaderBytes - kMacsBytes;
  return noise.WriteMessage(payload, datagram.subspan(kHeaderBytes, size)).status();
}

TransportRoots TakeRoots(const NoiseTransport& transport) {
  return {.send = transport.send->key(), .receive = transport.receive->key()};
}

using PayloadBuffer = std::array<uint8_t, kMaxHandshakePayloadBytes>;

}  // namespace

const NoisePattern& HandshakePattern() {
  static const NoisePattern pattern =
      NoisePattern::Parse("Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s").value();
  return pattern;
}

std::array<uint8_t, 10> HandshakePrologue() {
  std::array<uint8_t, 10> prologue{};
  static_assert(kPrologueLabel.size() + sizeof(kMagic) + sizeof(kWireVersion) == prologue.size());
  std::copy(kPrologueLabel.begin(), kPrologueLabel.end(), prologue.begin());
  StoreBe16(prologue.data() + kPrologueLabel.size(), kMagic);
  prologue.back() = kWireVersion;
  return prologue;
}

absl::StatusOr<PeerKeys> PeerKeys::Create(const Identity& identity, const Key& public_key,
                                          const Key& preshared_key) {
  const absl::StatusOr<Secret> shared = X25519(identity.private_key, public_key);
  if (!shared.ok()) return shared.status();
  PeerKeys peer;
  peer.public_key = public_key;
  peer.preshared_key = Secret(preshared_key);
  peer.static_shared = *shared;
  return peer;
}

// Initiator.

absl::StatusOr<InitiatorHandshake> InitiatorHandshake::Create(const Identity& identity,
                                                              const PeerKeys& peer) {
  const auto prologue = HandshakePrologue();
  absl::StatusOr<HandshakeState> noise =
      HandshakeState::Create({.pattern = &HandshakePattern(),
                              .role = NoiseRole::kInitiator,
                              .prologue = prologue,
                              .local_static = &identity,
                              .remote_static = &peer.public_key,
                              .static_shared = &peer.static_shared,
                              .preshared_key = &peer.preshared_key});
  if (!noise.ok()) return noise.status();
  return InitiatorHandshake(*std::move(noise));
}

absl::StatusOr<size_t> InitiatorHandshake::Write(uint8_t path_id, const InitiationPayload& payload,
                                                 MacStamper& stamper, TimeNs now,
                                                 MutableBytes out) {
  if (written_) return absl::FailedPreconditionError("the initiation was written before");
  if (absl::Status room = CheckRoom(path_id, out, kInitiationBytes); !room.ok()) return room;
  if (absl::Status offer = CheckOffer(payload); !offer.ok()) return offer;

  const MutableBytes datagram = out.first(kInitiationBytes);
  std::array<uint8_t, kInitiationPayloadBytes> plain;
  WriteInitiationPayload(plain.data(), payload);
  const Header header = HandshakeHeader(Kind::kInitiation, 0, path_id);
  written_ = true;
  if (absl::Status sealed = Seal(noise_, header, plain, datagram); !sealed.ok()) return sealed;
  stamper.AddMacs(datagram, payload.sender_index, now);
  offer_ = payload;
  pending_ = true;
  return datagram.size();
}

absl::StatusOr<InitiatorHandshake::Result> InitiatorHandshake::Read(Bytes datagram) {
  if (!pending_) return absl::FailedPreconditionError("no response is expected");
  const std::optional<Header> header = ReadHandshakeHeader(datagram, Kind::kResponse);
  if (!header || !IsSize(datagram, kResponseFrameBytes, kResponsePayloadBytes)) {
    return absl::InvalidArgumentError("the datagram is no response");
  }
  if (header->session != offer_.sender_index) {
    return absl::NotFoundError("the response answers another initiation");
  }

  HandshakeState attempt = noise_;
  attempt.MixHash(datagram.first(kHeaderBytes));
  PayloadBuffer payload;
  const absl::StatusOr<size_t> size = attempt.ReadMessage(NoiseMessage(datagram), payload);
  if (!size.ok()) return size.status();
  const ResponsePayload response = ReadResponsePayload(payload.data());
  if (absl::Status choice = CheckChoice(offer_, response); !choice.ok()) return choice;
  absl::StatusOr<NoiseTransport> transport = attempt.Split();
  if (!transport.ok()) return transport.status();

  pending_ = false;
  noise_ = attempt;  // wiped by Split
  return Result{response, TakeRoots(*transport), header->path};
}

// Responder.

absl::StatusOr<ResponderHandshake> ResponderHandshake::Read(const Identity& identity,
                                                            Bytes datagram, PeerLookup lookup) {
  const std::optional<Header> header = ReadHandshakeHeader(datagram, Kind::kInitiation);
  if (!header || header->session != 0 ||
      !IsSize(datagram, kInitiationFrameBytes, kInitiationPayloadBytes)) {
    return absl::InvalidArgumentError("the datagram is no initiation");
  }
  const auto prologue = HandshakePrologue();
  absl::StatusOr<HandshakeState> noise = HandshakeState::Create({.pattern = &HandshakePattern(),
                                                                 .role = NoiseRole::kResponder,
                                                                 .prologue = prologue,
                                                                 .local_static = &identity});
  if (!noise.ok()) return noise.status();

  ResponderHandshake handshake(*std::move(noise));
  const PeerKeys* peer = nullptr;
  const auto gate = [&](const Key& remote_static, std::optional<Secret>& static_shared) {
    peer = lookup(remote_static);
    if (peer == nullptr) return absl::NotFoundError("the initiation comes from an unknown peer");
    static_shared = peer->static_shared;
    return absl::OkStatus();
  };
  handshake.noise_.MixHash(datagram.first(kHeaderBytes));
  PayloadBuffer payload;
  const absl::StatusOr<size_t> size =
      handshake.noise_.ReadMessage(NoiseMessage(datagram), payload, gate);
  if (!size.ok()) return size.status();
  handshake.initiation_ = ReadInitiationPayload(payload.data());
  if (absl::Status offer = CheckOffer(handshake.initiation_); !offer.ok()) return offer;

  handshake.noise_.SetPresharedKey(peer->preshared_key);
  handshake.peer_public_key_ = peer->public_key;
  handshake.path_id_ = header->path;
  return handshake;
}

absl::StatusOr<ResponderHandshake::Result> ResponderHandshake::Write(uint8_t path_id,
                                                                     const ResponsePayload& payload,
                                                                     MacStamper& stamper,
                                                                     TimeNs now, MutableBytes out) {
  if (absl::Status room = CheckRoom(path_id, out, kResponseBytes); !room.ok()) return room;
  if (absl::Status choice = CheckChoice(initiation_, payload); !choice.ok()) return choice;
  if (noise_.dead()) return absl::FailedPreconditionError("the response was written before");

  const MutableBytes datagram = out.first(kResponseBytes);
  std::array<uint8_t, kResponsePayloadBytes> plain;
  WriteResponsePayload(plain.data(), payload);
  const Header header = HandshakeHeader(Kind::kResponse, initiation_.sender_index, path_id);
  if (absl::Status sealed = Seal(noise_, header, plain, datagram); !sealed.ok()) return sealed;
  absl::StatusOr<NoiseTransport> transport = noise_.Split();
  if (!transport.ok()) return transport.status();
  stamper.AddMacs(datagram, payload.sender_index, now);
  return Result{datagram.size(), TakeRoots(*transport)};
}

}  // namespace braid
