// The header that opens every datagram: its bytes, its nonce, and what is refused.
#include "fastpath/wire.h"

#include <gtest/gtest.h>

#include <array>
#include <vector>

namespace braid::wire_test {
namespace {

constexpr Header kHeader{Kind::kData, 0x01020304,           0x05,       0xc6,
                         0x07,        kFlagPartialChecksum, 0x08090a0b, 0x0c0d0e0f10111213};

// The bytes as docs/wire.md has them.
constexpr std::array<uint8_t, kHeaderBytes> kBytes = {
    0xb7, 0xa1, 1,    4,    0x01, 0x02, 0x03, 0x04, 0x05, 0xc6, 0x07, 0x01,
    0x08, 0x09, 0x0a, 0x0b, 0x0c, 0x0d, 0x0e, 0x0f, 0x10, 0x11, 0x12, 0x13};

std::vector<uint8_t> Datagram(size_t bytes = 100) {
  std::vector<uint8_t> datagram(bytes);
  std::copy_n(kBytes.begin(), std::min(bytes, kBytes.size()), datagram.begin());
  return datagram;
}

// Where GCC sees both the length and the reads it warns of reads that the length keeps from
// happening.
[[gnu::noinline]] HeaderVerdict Verdict(const std::vector<uint8_t>& datagram) {
  Header header;
  return ReadHeader(datagram, header);
}

TEST(Wire, WritesTheDocumentedBytes) {
  std::array<uint8_t, kHeaderBytes> bytes;
  WriteHeader(bytes.data(), kHeader);
  EXPECT_EQ(bytes, kBytes);
}

TEST(Wire, ReadsWhatItWrote) {
  Header header;
  ASSERT_EQ(ReadHeader(Datagram(), header), HeaderVerdict::kOk);
  EXPECT_EQ(header.kind, kHeader.kind);
  EXPECT_EQ(header.session, kHeader.session);
  EXPECT_EQ(header.lane, kHeader.lane);
  EXPECT_EQ(header.path, kHeader.path);
  EXPECT_EQ(header.path & kPathIdMask, 6);
  EXPECT_EQ(header.path >> kPathCopyShift, 3);
  EXPECT_EQ(header.epoch, kHeader.epoch);
  EXPECT_EQ(header.flags, kHeader.flags);
  EXPECT_EQ(header.path_seq, kHeader.path_seq);
  EXPECT_EQ(header.sequence, kHeader.sequence);
}

TEST(Wire, PutsPathLaneAndSequenceIntoTheNonce) {
  EXPECT_EQ(MakeNonce(0xc6, 0x05, 0x0c0d0e0f10111213),
            (Nonce{0, 0, 0xc6, 0x05, 0x0c, 0x0d, 0x0e, 0x0f, 0x10, 0x11, 0x12, 0x13}));
}

TEST(Wire, RefusesDatagramsShorterThanAHeader) {
  for (size_t bytes = 0; bytes < kHeaderBytes; ++bytes) {
    EXPECT_EQ(Verdict(Datagram(bytes)), HeaderVerdict::kTooShort) << bytes;
  }
}

TEST(Wire, WantsRoomForATagOnlyWhereThereIsOne) {
  for (uint8_t kind = 1; kind <= 6; ++kind) {
    for (size_t bytes = kHeaderBytes; bytes <= kSealOverheadBytes; ++bytes) {
      auto datagram = Datagram(bytes);
      datagram[3] = kind;
      const bool whole = kind < 4 || bytes >= kSealOverheadBytes;
      EXPECT_EQ(Verdict(datagram), whole ? HeaderVerdict::kOk : HeaderVerdict::kTooShort)
          << int{kind} << " " << bytes;
    }
  }
}

TEST(Wire, RefusesEveryOtherValueOfTheFirstFourBytes) {
  constexpr HeaderVerdict kVerdicts[] = {HeaderVerdict::kBadMagic, HeaderVerdict::kBadMagic,
                                         HeaderVerdict::kBadVersion, HeaderVerdict::kBadKind};
  for (size_t at = 0; at < 4; ++at) {
    for (int value = 0; value < 256; ++value) {
      auto datagram = Datagram();
      datagram[at] = static_cast<uint8_t>(value);
      const bool good = value == kBytes[at] || (at == 3 && value >= 1 && value <= 6);
      EXPECT_EQ(Verdict(datagram), good ? HeaderVerdict::kOk : kVerdicts[at]) << at << " " << value;
    }
  }
}

TEST(Wire, RefusesReservedFlags) {
  for (int flags = 0; flags < 256; ++flags) {
    auto datagram = Datagram();
    datagram[11] = static_cast<uint8_t>(flags);
    EXPECT_EQ(Verdict(datagram), flags < 4 ? HeaderVerdict::kOk : HeaderVerdict::kBadFlags)
        << flags;
  }
}

}  // namespace
}  // namespace braid::wire_test
