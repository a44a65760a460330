// The MACs in front of a handshake message and the cookie that answers it under load.
#include "slowpath/cookie.h"

#include <gtest/gtest.h>
#include <sodium.h>

#include <algorithm>
#include <numeric>
#include <string>
#include <vector>

namespace braid::cookie_test {
namespace {

using Buffer = std::vector<uint8_t>;

constexpr TimeNs kStart = 1'000 * kSecondNs;
constexpr uint32_t kIndex = 0x51a2b3c4;
constexpr size_t kMessageBytes = 172;

Key CountingKey() {
  Key key;
  std::iota(key.begin(), key.end(), uint8_t{0});
  return key;
}

std::string ToHex(Bytes bytes) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  for (uint8_t byte : bytes) text += {kDigits[byte >> 4], kDigits[byte & 15]};
  return text;
}

Bytes Mac1Of(const Buffer& message) { return Bytes(message).last(kMacsBytes).first(kMacBytes); }
Bytes Mac2Of(const Buffer& message) { return Bytes(message).last(kMacBytes); }

class CookieTest : public ::testing::Test {
 protected:
  Buffer Stamp(TimeNs now, uint8_t path_id = 5) {
    Buffer message(kMessageBytes, 0x5a);
    WriteHeader(message.data(), HandshakeHeader(Kind::kInitiation, 0, path_id));
    stamper_.AddMacs(message, kIndex, now);
    return message;
  }

  Buffer CookieFor(const Buffer& message, TimeNs now) {
    Buffer cookie(kCookieReplyBytes);
    const absl::StatusOr<size_t> size = checker_.WriteCookie(message, source_, now, cookie);
    EXPECT_TRUE(size.ok()) << size.status();
    EXPECT_EQ(size.value_or(0), kCookieReplyBytes);
    return cookie;
  }

  void ObtainCookie(TimeNs now) {
    const Buffer cookie = CookieFor(Stamp(now), now);
    ASSERT_TRUE(stamper_.ConsumeCookie(cookie, now).ok());
  }

  const Key key_ = CountingKey();
  CookieChecker checker_{key_};
  MacStamper stamper_{key_};
  const Endpoint source_ = Endpoint::Parse("10.20.1.1:40000").value();
};

// Answers from Python's hashlib.blake2s, which knows nothing of this code; the cookie was sealed by
// hand.
TEST_F(CookieTest, MacsMatchKnownAnswers) {
  Buffer message(100 + kMacsBytes);
  std::iota(message.begin(), message.begin() + 100, uint8_t{0});
  stamper_.AddMacs(message, kIndex, kStart);
  EXPECT_EQ(ToHex(Mac1Of(message)), "eb9c42cc3a932ba428e627847384fc25");
  EXPECT_EQ(ToHex(Mac2Of(message)), std::string(32, '0'));

  Buffer reply(kCookieReplyBytes);
  WriteHeader(reply.data(), HandshakeHeader(Kind::kCookie, 0, 9));  // the path at offset 9
  Buffer cookie(kCookieBytes);
  std::iota(cookie.begin(), cookie.end(), uint8_t{0x40});
  const Buffer label = {'c', 'o', 'o', 'k', 'i', 'e', '-', '-'};
  const Key cookie_key = Blake2s({label, key_});
  crypto_aead_xchacha20poly1305_ietf_encrypt(
      reply.data() + kHeaderBytes + kCookieNonceBytes, nullptr, cookie.data(), cookie.size(),
      Mac1Of(message).data(), kMacBytes, nullptr, reply.data() + kHeaderBytes, cookie_key.data());
  ASSERT_TRUE(stamper_.ConsumeCookie(reply, kStart).ok());
  stamper_.AddMacs(message, kIndex, kStart);
  EXPECT_EQ(ToHex(Mac2Of(message)), "f8895bed1bfd44dd7eebf55e3e54c7f4");
}

TEST_F(CookieTest, Mac1CoversEveryBit) {
  const Buffer message = Stamp(kStart);
  EXPECT_TRUE(checker_.CheckMac1(message));
  for (size_t bit = 0; bit < 8 * (kMessageBytes - kMacBytes); ++bit) {
    Buffer changed = message;
    changed[bit / 8] ^= static_cast<uint8_t>(1 << (bit % 8));
    ASSERT_FALSE(checker_.CheckMac1(changed)) << bit;
    ASSERT_EQ(checker_.Admit(changed, source_, false, kStart), Admission::kRefused);
  }
}

TEST_F(CookieTest, Mac1CoversTheSize) {
  Buffer message = Stamp(kStart);
  message.resize(2 * kMessageBytes);
  for (size_t size = 0; size <= message.size(); ++size) {
    EXPECT_EQ(checker_.CheckMac1(Bytes(message).first(size)), size == kMessageBytes) << size;
  }
}

TEST_F(CookieTest, Mac1IsForOneReceiver) {
  CookieChecker other(Key{1});
  EXPECT_FALSE(other.CheckMac1(Stamp(kStart)));
}

TEST_F(CookieTest, ANonZeroMac2IsRefusedAlsoWithoutLoad) {
  const Buffer message = Stamp(kStart);
  EXPECT_EQ(checker_.CheckMac2(message, source_, kStart), Mac2Verdict::kAbsent);
  EXPECT_EQ(checker_.Admit(message, source_, false, kStart), Admission::kAdmitted);
  for (size_t bit = 0; bit < 8 * kMacBytes; ++bit) {
    Buffer changed = message;
    changed[kMessageBytes - kMacBytes + bit / 8] ^= static_cast<uint8_t>(1 << (bit % 8));
    ASSERT_EQ(checker_.CheckMac2(changed, source_, kStart), Mac2Verdict::kInvalid);
    ASSERT_EQ(checker_.Admit(changed, source_, false, kStart), Admission::kRefused);
  }
}

TEST_F(CookieTest, UnderLoadACookieIsAskedForAndThenAdmits) {
  const Buffer first = Stamp(kStart);
  ASSERT_EQ(checker_.Admit(first, source_, true, kStart), Admission::kNeedsCookie);
  ASSERT_TRUE(stamper_.ConsumeCookie(CookieFor(first, kStart), kStart).ok());
  EXPECT_TRUE(stamper_.HasCookie(kStart));

  const Buffer second = Stamp(kStart);
  EXPECT_EQ(checker_.CheckMac2(second, source_, kStart), Mac2Verdict::kValid);
  EXPECT_EQ(checker_.Admit(second, source_, true, kStart), Admission::kAdmitted);
  EXPECT_EQ(checker_.Admit(second, source_, false, kStart), Admission::kAdmitted);
}

TEST_F(CookieTest, AValidMac2CoversEveryBit) {
  ObtainCookie(kStart);
  const Buffer message = Stamp(kStart);
  for (size_t bit = 0; bit < 8 * kMessageBytes; ++bit) {
    Buffer changed = message;
    changed[bit / 8] ^= static_cast<uint8_t>(1 << (bit % 8));
    ASSERT_EQ(checker_.CheckMac2(changed, source_, kStart), Mac2Verdict::kInvalid) << bit;
  }
}

TEST_F(CookieTest, ACookieIsBoundToAddressAndPort) {
  ObtainCookie(kStart);
  const Buffer message = Stamp(kStart);
  for (const char* other :
       {"10.20.1.1:40001", "10.20.1.2:40000", "[::ffff:10.20.1.1]:40000", "[a14:101::]:40000"}) {
    const Endpoint source = Endpoint::Parse(other).value();
    EXPECT_EQ(checker_.CheckMac2(message, source, kStart), Mac2Verdict::kInvalid) << other;
  }
}

TEST_F(CookieTest, ASenderUsesACookieForItsLifetime) {
  ObtainCookie(kStart);
  Stamp(kStart + kCookieLifetimeNs - 1);
  EXPECT_TRUE(stamper_.HasCookie(kStart + kCookieLifetimeNs - 1));
  const Buffer late = Stamp(kStart + kCookieLifetimeNs);
  EXPECT_FALSE(stamper_.HasCookie(kStart + kCookieLifetimeNs));
  EXPECT_EQ(checker_.CheckMac2(late, source_, kStart), Mac2Verdict::kAbsent);
}

TEST_F(CookieTest, ADroppedCookieIsNotUsed) {
  ObtainCookie(kStart);
  stamper_.DropCookie();
  EXPECT_EQ(checker_.CheckMac2(Stamp(kStart), source_, kStart), Mac2Verdict::kAbsent);
}

TEST_F(CookieTest, TheSecretBeforeStaysValidUntilTheNextRotation) {
  constexpr DurationNs kLife = kCookieLifetimeNs;
  struct Row {
    DurationNs issued;
    DurationNs used;  // the checker made another cookie then
    DurationNs checked;
    bool valid;
  };
  // The first use, at 0, sets the rhythm.
  for (const Row& row :
       {Row{0, 0, 0, true}, Row{0, 0, kLife - 1, true}, Row{0, 0, kLife, true},
        Row{0, 0, 2 * kLife - 1, true}, Row{0, 0, 2 * kLife, false},
        Row{0, kLife * 3 / 2, 2 * kLife - 1, true}, Row{0, kLife * 3 / 2, 2 * kLife, false},
        Row{kLife - 1, kLife - 1, 2 * kLife - 1, true}, Row{kLife - 1, kLife, 2 * kLife, false},
        Row{kLife, kLife, 3 * kLife - 1, true}, Row{kLife, kLife, 3 * kLife, false},
        Row{0, 0, 1000 * kLife, false}, Row{0, kLife, 1000 * kLife, false}}) {
    SCOPED_TRACE(::testing::Message() << row.issued / kSecondNs << " " << row.used / kSecondNs
                                      << " " << row.checked / kSecondNs);
    CookieChecker checker(key_);
    Buffer reply(kCookieReplyBytes);
    Buffer unused(kCookieReplyBytes);
    const Buffer asking = Stamp(kStart);
    ASSERT_TRUE(checker.WriteCookie(asking, source_, kStart, unused).ok());
    ASSERT_TRUE(checker.WriteCookie(asking, source_, kStart + row.issued, reply).ok());
    ASSERT_TRUE(checker.WriteCookie(asking, source_, kStart + row.used, unused).ok());
    ASSERT_TRUE(stamper_.ConsumeCookie(reply, kStart).ok());
    const Buffer message = Stamp(kStart);
    EXPECT_EQ(checker.CheckMac2(message, source_, kStart + row.checked),
              row.valid ? Mac2Verdict::kValid : Mac2Verdict::kInvalid);
    stamper_.DropCookie();
  }
}

// Every rotation on the way is made, not only the last.
TEST_F(CookieTest, ABusyCheckerRotatesTheSame) {
  ObtainCookie(kStart);
  const Buffer message = Stamp(kStart);
  for (TimeNs now = kStart; now < kStart + 5 * kCookieLifetimeNs; now += kSecondNs) {
    const bool valid = now < kStart + 2 * kCookieLifetimeNs;
    ASSERT_EQ(checker_.CheckMac2(message, source_, now),
              valid ? Mac2Verdict::kValid : Mac2Verdict::kInvalid);
  }
}

TEST_F(CookieTest, EveryChangedBitOfACookieIsRefused) {
  const Buffer cookie = CookieFor(Stamp(kStart), kStart);
  for (size_t bit = 0; bit < 8 * cookie.size(); ++bit) {
    Buffer changed = cookie;
    changed[bit / 8] ^= static_cast<uint8_t>(1 << (bit % 8));
    ASSERT_FALSE(stamper_.ConsumeCookie(changed, kStart).ok()) << bit;
    ASSERT_FALSE(stamper_.HasCookie(kStart));
  }
  EXPECT_TRUE(stamper_.ConsumeCookie(cookie, kStart).ok());
}

TEST_F(CookieTest, ACookieOfAnotherSizeIsRefused) {
  Buffer cookie = CookieFor(Stamp(kStart), kStart);
  cookie.resize(2 * cookie.size());
  for (size_t size = 0; size <= cookie.size(); ++size) {
    if (size == kCookieReplyBytes) continue;
    ASSERT_FALSE(stamper_.ConsumeCookie(Bytes(cookie).first(size), kStart).ok()) << size;
  }
  EXPECT_FALSE(stamper_.HasCookie(kStart));
}

TEST_F(CookieTest, OnlyTheMessageSentLastCanBeAnswered) {
  EXPECT_FALSE(stamper_.ConsumeCookie(Buffer(kCookieReplyBytes), kStart).ok());
  Buffer first = Stamp(kStart);
  const Buffer late = CookieFor(first, kStart);
  Buffer second = first;
  second[40] ^= 1;
  stamper_.AddMacs(second, kIndex, kStart);
  EXPECT_FALSE(stamper_.ConsumeCookie(late, kStart).ok());
  const Buffer cookie = CookieFor(second, kStart);
  EXPECT_TRUE(stamper_.ConsumeCookie(cookie, kStart).ok());
  EXPECT_FALSE(stamper_.ConsumeCookie(cookie, kStart).ok()) << "a second time";
}

TEST_F(CookieTest, ACookieMayNameTheIndexOfTheSender) {
  Buffer cookie = CookieFor(Stamp(kStart), kStart);
  StoreBe32(cookie.data() + 4, kIndex + 1);
  EXPECT_FALSE(stamper_.ConsumeCookie(cookie, kStart).ok());
  StoreBe32(cookie.data() + 4, kIndex);
  EXPECT_TRUE(stamper_.ConsumeCookie(cookie, kStart).ok());
}

TEST_F(CookieTest, NoCookieForAnInvalidMac1) {
  Buffer message = Stamp(kStart);
  message[30] ^= 1;
  Buffer out(kCookieReplyBytes);
  EXPECT_FALSE(checker_.WriteCookie(message, source_, kStart, out).ok());
  EXPECT_EQ(out, Buffer(kCookieReplyBytes));
}

TEST_F(CookieTest, ACookieIsSmallerThanWhatItAnswers) {
  for (size_t size = kHeaderBytes + kMacsBytes; size < kMessageBytes; ++size) {
    Buffer message(size);
    WriteHeader(message.data(), HandshakeHeader(Kind::kInitiation, 0, 0));
    stamper_.AddMacs(message, kIndex, kStart);
    Buffer out(kCookieReplyBytes);
    EXPECT_EQ(checker_.WriteCookie(message, source_, kStart, out).ok(), size > kCookieReplyBytes);
  }
}

TEST_F(CookieTest, NothingButAHandshakeMessageGetsACookie) {
  for (Kind kind : {Kind::kCookie, Kind::kData, Kind::kControl, Kind::kParity}) {
    Buffer message(kMessageBytes);
    WriteHeader(message.data(), HandshakeHeader(kind, 0, 0));
    stamper_.AddMacs(message, kIndex, kStart);
    Buffer out(kCookieReplyBytes);
    EXPECT_FALSE(checker_.WriteCookie(message, source_, kStart, out).ok());
  }
}

TEST_F(CookieTest, NoRoomForACookieIsAnError) {
  Buffer out(kCookieReplyBytes - 1);
  EXPECT_FALSE(checker_.WriteCookie(Stamp(kStart), source_, kStart, out).ok());
}

TEST_F(CookieTest, CookiesNeverLookAlike) {
  const Buffer message = Stamp(kStart);
  const Buffer one = CookieFor(message, kStart);
  const Buffer two = CookieFor(message, kStart);
  EXPECT_NE(Buffer(one.begin() + kHeaderBytes, one.end()),
            Buffer(two.begin() + kHeaderBytes, two.end()));
}

}  // namespace
}  // namespace braid::cookie_test
