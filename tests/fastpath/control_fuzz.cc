// Any bytes as a control message: what is accepted is written back as it was, but for padding.
#include "fastpath/control.h"
#include "support/fuzz_input.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace braid;
  using testing::Check;
  ControlMessage message;
  if (ReadControlMessage({data, size}, message) != ControlVerdict::kOk) return 0;
  std::array<uint8_t, kMaxControlBytes> again;
  const size_t bytes = WriteControlMessage(message, again);
  const bool is_padded = message.type == ControlMessage::Type::kProbe;
  Check(is_padded ? bytes <= size && message.mtu == size : bytes == size);
  Check(std::equal(data, data + bytes, again.begin()));
  return 0;
}
