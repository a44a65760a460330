// Control messages: written and read back, unknown ones skipped, broken ones told apart.
#include "fastpath/control.h"

#include <gtest/gtest.h>

#include <vector>

namespace braid::control_test {
namespace {

using Type = ControlMessage::Type;

constexpr Type kTypes[] = {Type::kPing,  Type::kPong,   Type::kConfirmEpoch,
                           Type::kHello, Type::kClose,  Type::kPathGone,
                           Type::kProbe, Type::kProbed, Type::kMode};

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
    const bool has_token =
        type != Type::kConfirmEpoch && type != Type::kHello && type != Type::kClose;
    if (has_token) message.token = 0x0102030405060708;
    if (type == Type::kPathGone) message.path = 5;
    if (type == Type::kProbe) message.mtu = 9;
    if (type == Type::kProbed) message.mtu = 1432;
    if (type == Type::kMode) message.mode = BondingMode::kRedundant;
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
    EXPECT_EQ(read.path, message.path);
    EXPECT_EQ(read.mtu, message.mtu);
    EXPECT_EQ(read.mode, message.mode);
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
  ControlMessage gone{Type::kPathGone};
  gone.token = 0x0102030405060708;
  gone.path = 3;
  EXPECT_EQ(Written(gone), (std::vector<uint8_t>{6, 1, 2, 3, 4, 5, 6, 7, 8, 3}));
  ControlMessage mode{Type::kMode};
  mode.token = 0x0102030405060708;
  mode.mode = BondingMode::kPreferred;
  EXPECT_EQ(Written(mode), (std::vector<uint8_t>{9, 1, 2, 3, 4, 5, 6, 7, 8, 1}));
  ControlMessage probed{Type::kProbed};
  probed.token = 0x0102030405060708;
  probed.mtu = 0x0598;
  EXPECT_EQ(Written(probed), (std::vector<uint8_t>{8, 1, 2, 3, 4, 5, 6, 7, 8, 5, 0x98}));
}

TEST(Control, RefusesAModeThatThereIsNot) {
  std::vector<uint8_t> bytes = Written({Type::kMode});
  for (const uint8_t mode : {3, 255}) {
    bytes.back() = mode;
    EXPECT_EQ(Verdict(bytes), ControlVerdict::kMalformed);
  }
}

TEST(Control, RefusesEveryOtherLength) {
  for (const Type type : kTypes) {
    const size_t right = Written({type}).size();
    for (size_t bytes = 1; bytes <= 20; ++bytes) {
      std::vector<uint8_t> message(bytes);
      message[0] = static_cast<uint8_t>(type);
      const bool is_good = type == Type::kProbe ? bytes >= right : bytes == right;
      EXPECT_EQ(Verdict(message), is_good ? ControlVerdict::kOk : ControlVerdict::kMalformed);
    }
  }
}

TEST(Control, AProbeIsAsLongAsItsPadding) {
  std::vector<uint8_t> probe = Written({Type::kProbe, 77});
  for (const size_t bytes : {size_t{9}, size_t{1280}, size_t{1432}, size_t{65467}}) {
    probe.resize(bytes);
    ControlMessage read;
    ASSERT_EQ(ReadControlMessage(probe, read), ControlVerdict::kOk);
    EXPECT_EQ(read.token, 77u);
    EXPECT_EQ(read.mtu, bytes);
  }
  probe.resize(65536);
  EXPECT_EQ(Verdict(probe), ControlVerdict::kMalformed);
}

TEST(Control, SkipsTypesOfLaterVersions) {
  for (int type = 10; type < 256; ++type) {
    EXPECT_EQ(Verdict({static_cast<uint8_t>(type), 1, 2}), ControlVerdict::kUnknownType);
  }
  EXPECT_EQ(Verdict({}), ControlVerdict::kMalformed);
  EXPECT_EQ(Verdict({0}), ControlVerdict::kMalformed);
}

}  // namespace
}  // namespace braid::control_test
