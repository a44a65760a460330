// The 24-byte header that opens every datagram, big-endian, and the nonce that follows from it.
// The whole header is associated data of the seal. docs/wire.md is the contract.
#pragma once

#include <array>
#include <cstdint>

#include "base/bytes.h"
#include "base/limits.h"

namespace braid {

inline constexpr uint16_t kMagic = 0xB7A1;
inline constexpr uint8_t kWireVersion = 1;

enum class Kind : uint8_t {
  kInitiation = 1,
  kResponse = 2,
  kCookie = 3,
  // From here on the payload is sealed under a lane's key.
  kData = 4,
  kControl = 5,
  kParity = 6,
};

inline bool IsSealed(Kind kind) { return kind >= Kind::kData; }

// The checksum of the outermost TCP or UDP header is partial: the pseudo-header's sum only.
inline constexpr uint8_t kFlagPartialChecksum = 1 << 0;
inline constexpr uint8_t kFlagCompressed = 1 << 1;
inline constexpr uint8_t kKnownFlags = kFlagPartialChecksum | kFlagCompressed;

inline constexpr uint8_t kPathIdMask = 0x3f;
inline constexpr int kPathCopyShift = 6;

struct Header {
  Kind kind;
  uint32_t session;  // the receiver's index; 0 in an initiation
  uint8_t lane;
  uint8_t path;   // low 6 bits: sender's path id; high 2: copy
  uint8_t epoch;  // low 8 bits of the lane's key epoch
  uint8_t flags;
  uint32_t path_seq;
  uint64_t sequence;
};

enum class HeaderVerdict : uint8_t { kOk, kTooShort, kBadMagic, kBadVersion, kBadKind, kBadFlags };

inline void WriteHeader(uint8_t* to, const Header& header) {
  StoreBe16(to, kMagic);
  to[2] = kWireVersion;
  to[3] = static_cast<uint8_t>(header.kind);
  StoreBe32(to + 4, header.session);
  to[8] = header.lane;
  to[9] = header.path;
  to[10] = header.epoch;
  to[11] = header.flags;
  StoreBe32(to + 12, header.path_seq);
  StoreBe64(to + 16, header.sequence);
}

// Reads the header in front of `datagram`. A sealed kind is also checked to hold a tag.
inline HeaderVerdict ReadHeader(Bytes datagram, Header& header) {
  if (datagram.size() < kHeaderBytes) return HeaderVerdict::kTooShort;
  const uint8_t* from = datagram.data();
  if (LoadBe16(from) != kMagic) return HeaderVerdict::kBadMagic;
  if (from[2] != kWireVersion) return HeaderVerdict::kBadVersion;
  if (from[3] < static_cast<uint8_t>(Kind::kInitiation) ||
      from[3] > static_cast<uint8_t>(Kind::kParity)) {
    return HeaderVerdict::kBadKind;
  }
  header.kind = static_cast<Kind>(from[3]);
  header.session = LoadBe32(from + 4);
  header.lane = from[8];
  header.path = from[9];
  header.epoch = from[10];
  header.flags = from[11];
  header.path_seq = LoadBe32(from + 12);
  header.sequence = LoadBe64(from + 16);
  if ((header.flags & ~kKnownFlags) != 0) return HeaderVerdict::kBadFlags;
  if (IsSealed(header.kind) && datagram.size() < kSealOverheadBytes)
    return HeaderVerdict::kTooShort;
  return HeaderVerdict::kOk;
}

using Nonce = std::array<uint8_t, 12>;

// 0 0 ‖ path ‖ lane ‖ sequence: the path is part of it, so that the copies of one packet that go
// over several paths are sealed under different nonces.
inline Nonce MakeNonce(uint8_t path, uint8_t lane, uint64_t sequence) {
  Nonce nonce{0, 0, path, lane};
  StoreBe64(nonce.data() + 4, sequence);
  return nonce;
}

}  // namespace braid
