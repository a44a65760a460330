// A bond's messages (bonding/bond_messages.h) as bytes: sealed control messages of types of their
// own. docs/wire.md lists them.
#pragma once

#include <array>

#include "base/bytes.h"
#include "bonding/bond_messages.h"
#include "fastpath/control.h"

namespace braid {

enum class BondMessageType : uint8_t { kProbe = 16, kReport = 17, kMissing = 18 };

inline constexpr size_t kMaxBondMessageBytes = 2 + MissingReport::kMaxRanges * 8;

// Each returns the bytes written.
using BondMessageBytes = std::array<uint8_t, kMaxBondMessageBytes>;
size_t WriteBondMessage(const BondProbe& probe, BondMessageBytes& to);
size_t WriteBondMessage(const BondReport& report, BondMessageBytes& to);
size_t WriteBondMessage(const MissingReport& missing, BondMessageBytes& to);

struct BondMessage {
  BondMessageType type;
  BondProbe probe;
  BondReport report;
  MissingReport missing;
};

// kUnknownType for any other control message.
ControlVerdict ReadBondMessage(Bytes from, BondMessage& message);

}  // namespace braid
