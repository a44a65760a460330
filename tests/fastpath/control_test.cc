// Control messages: written and read back, unknown ones skipped, broken ones told apart.
#include "fastpath/control.h"

#include <gtest/gtest.h>

#include <vector>

namespace braid {
namespace {

using Type = ControlMessage::Type;

constexpr Type kTypes[] = {Type::kPing, Type::kPong, Type::kConfirmEpoch, Type::kHello,
                           Type::kClose};

std::vector<uint8_t> Written(const ControlMessage& message) {
  std::array<uint8_t, kMaxControlBytes> bytes{};
  const size_t size = WriteControlMessage(message, bytes);
  EXPECT_LE(size, bytes.size());
  return {bytes.begin(), bytes.begin() + static_cast<ptrdiff_t>(size)};
}

ControlVerdict Verdict(const std::vector<uint8_t>& bytes) {
  ControlMessage message;
  return ReadControlMessage(bytes, message);
}

TEST(Control, ReadsWhatItWrote) {
  for (const Type type : kTypes) {
    ControlMessage message{type};
    if (type == Type::kPing || type == Type::kPong) message.token = 0x0102030405060708;
    if (type == Type::kConfirmEpoch) {
      message.session = 0xa1a2a3a4;
      message.epoch = 0xb1b2b3b4;
    }
    ControlMessage read;
    ASSERT_EQ(ReadControlMessage(Written(message), read), ControlVerdict::kOk);
    EXPECT_EQ(read.type, message.type);
    EXPECT_EQ(read.token, message.token);
    EXPECT_EQ(read.session, message.session);
    EXPECT_EQ(read.epoch, message.epoch);
  }
}

TEST(Control, WritesBigEndian) {
  ControlMessage ping{Type::kPing};
  ping.token = 0x0102030405060708;
  EXPECT_EQ(Written(ping), (std::vector<uint8_t>{1, 1, 2, 3, 4, 5, 6, 7, 8}));
  ControlMessage confirm{Type::kConfirmEpoch};
  confirm.session = 0x01020304;
  confirm.epoch = 0x05060708;
  EXPECT_EQ(Written(confirm), (std::vector<uint8_t>{3, 1, 2, 3, 4, 5, 6, 7, 8}));
  EXPECT_EQ(Written({Type::kHello}), std::vector<uint8_t>{4});
}

TEST(Control, RefusesEveryOtherLength) {
  for (const Type type : kTypes) {
    const size_t right = Written({type}).size();
    for (size_t bytes = 1; bytes <= 20; ++bytes) {
      std::vector<uint8_t> message(bytes);
      message[0] = static_cast<uint8_t>(type);
      EXPECT_EQ(Verdict(message),
                bytes == right ? ControlVerdict::kOk : ControlVerdict::kMalformed);
    }
  }
}

TEST(Control, SkipsTypesOfLaterVersions) {
  for (int type = 6; type < 256; ++type) {
    EXPECT_EQ(Verdict({static_cast<uint8_t>(type), 1, 2}), ControlVerdict::kUnknownType);
  }
  EXPECT_EQ(Verdict({}), ControlVerdict::kMalformed);
  EXPECT_EQ(Verdict({0}), ControlVerdict::kMalformed);
}

}  // namespace
}  // namespace braid
