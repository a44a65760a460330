// Any bytes as a datagram: a header that is accepted is written back as it was.
#include "fastpath/wire.h"
#include "support/fuzz_input.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace braid;
  using testing::Check;
  Header header;
  testing::Buffer datagram(data, data + size);
  // A magic would seldom be guessed; every fourth input has to.
  if (size > 4 && size % 4 != 0) {
    StoreBe16(&datagram[0], kMagic);
    datagram[2] = kWireVersion;
  }
  if (ReadHeader(datagram, header) != HeaderVerdict::kOk) return 0;
  Check(size >= (IsSealed(header.kind) ? kSealOverheadBytes : kHeaderBytes));
  Check((header.flags & ~kKnownFlags) == 0);
  uint8_t again[kHeaderBytes];
  WriteHeader(again, header);
  Check(std::equal(again, again + kHeaderBytes, datagram.begin()));
  const Nonce nonce = MakeNonce(header.path, header.lane, header.sequence);
  Check(std::equal(nonce.begin() + 4, nonce.end(), datagram.begin() + 16));
  return 0;
}
