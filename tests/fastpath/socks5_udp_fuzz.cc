// Any bytes as a datagram of a SOCKS5 server: a header that is accepted lies within it, and one
// with an address is written back as it was, but for what is reserved and the fragment.
#include "fastpath/socks5_udp.h"
#include "support/fuzz_input.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace braid;
  using testing::Check;
  const auto header = ReadSocks5UdpHeader({data, size});
  if (!header) return 0;
  Check(header->length <= size);
  Check(header->fragment == (data[2] != 0));
  Check(header->port == LoadBe16(data + header->length - 2));
  if (!header->address.is_set()) {
    Check(data[3] == kSocks5AddressDomain && header->length == 7u + data[4]);
    return 0;
  }
  uint8_t again[kMaxSocks5UdpHeaderBytes];
  const size_t bytes = WriteSocks5UdpHeader(header->address, header->port, again);
  Check(bytes == header->length);
  Check(std::equal(again + 3, again + bytes, data + 3));
  auto read_again = ReadSocks5UdpHeader({again, bytes});
  Check(read_again && !read_again->fragment);
  read_again->fragment = header->fragment;
  Check(*read_again == *header);
  return 0;
}
