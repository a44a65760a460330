#include "fastpath/control.h"

namespace braid {
namespace {

// The size of a message of this type, of a probe without its padding; 0 when it is unknown.
size_t MessageBytes(ControlMessage::Type type) {
  switch (type) {
    case ControlMessage::Type::kPing:
    case ControlMessage::Type::kPong:
    case ControlMessage::Type::kConfirmEpoch:
    case ControlMessage::Type::kProbe:
      return 9;
    case ControlMessage::Type::kPathGone:
    case ControlMessage::Type::kMode:
      return 10;
    case ControlMessage::Type::kProbed:
      return 11;
    case ControlMessage::Type::kHello:
    case ControlMessage::Type::kClose:
      return 1;
  }
  return 0;
}

}  // namespace

ControlVerdict ReadControlMessage(Bytes from, ControlMessage& message) {
  if (from.empty() || from[0] == 0) return ControlVerdict::kMalformed;
  message = {static_cast<ControlMessage::Type>(from[0])};
  const size_t bytes = MessageBytes(message.type);
  if (bytes == 0) return ControlVerdict::kUnknownType;
  const bool is_padded = message.type == ControlMessage::Type::kProbe && from.size() <= UINT16_MAX;
  if (from.size() != bytes && !(is_padded && from.size() > bytes))
    return ControlVerdict::kMalformed;
  if (message.type == ControlMessage::Type::kConfirmEpoch) {
    message.session = LoadBe32(&from[1]);
    message.epoch = LoadBe32(&from[5]);
  } else if (bytes >= 9) {
    message.token = LoadBe64(&from[1]);
  }
  if (message.type == ControlMessage::Type::kPathGone) message.path = from[9];
  if (message.type == ControlMessage::Type::kProbe)
    message.mtu = static_cast<uint16_t>(from.size());
  if (message.type == ControlMessage::Type::kProbed) message.mtu = LoadBe16(&from[9]);
  if (message.type == ControlMessage::Type::kMode) {
    if (from[9] >= kBondingModeNames.size()) return ControlVerdict::kMalformed;
    message.mode = static_cast<BondingMode>(from[9]);
  }
  return ControlVerdict::kOk;
}

size_t WriteControlMessage(const ControlMessage& message,
                           std::array<uint8_t, kMaxControlBytes>& to) {
  const size_t bytes = MessageBytes(message.type);
  to[0] = static_cast<uint8_t>(message.type);
  if (message.type == ControlMessage::Type::kConfirmEpoch) {
    StoreBe32(&to[1], message.session);
    StoreBe32(&to[5], message.epoch);
  } else if (bytes >= 9) {
    StoreBe64(&to[1], message.token);
  }
  if (message.type == ControlMessage::Type::kPathGone) to[9] = message.path;
  if (message.type == ControlMessage::Type::kProbed) StoreBe16(&to[9], message.mtu);
  if (message.type == ControlMessage::Type::kMode) to[9] = static_cast<uint8_t>(message.mode);
  return bytes;
}

}  // namespace braid
