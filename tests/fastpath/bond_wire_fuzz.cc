// Any bytes as a bond's message: what is accepted is written back as it was.
#include "fastpath/bond_wire.h"
#include "support/fuzz_input.h"

namespace braid {
namespace {

size_t WriteAgain(const BondMessage& message, BondMessageBytes& to) {
  switch (message.type) {
    case BondMessageType::kProbe:
      return WriteBondMessage(message.probe, to);
    case BondMessageType::kReport:
      return WriteBondMessage(message.report, to);
    case BondMessageType::kMissing:
      return WriteBondMessage(message.missing, to);
  }
  testing::Check(false);
  return 0;
}

}  // namespace
}  // namespace braid

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace braid;
  using testing::Check;
  BondMessage message;
  if (ReadBondMessage({data, size}, message) != ControlVerdict::kOk) return 0;
  BondMessageBytes again;
  const size_t bytes = WriteAgain(message, again);
  Check(bytes == size);
  Check(std::equal(data, data + bytes, again.begin()));
  return 0;
}
