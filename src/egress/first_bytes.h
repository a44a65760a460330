// What a TCP flow says first, as far as it names its destination: the server name of a TLS
// ClientHello (SNI, RFC 6066; with Encrypted Client Hello that is the public name), or the host of
// an HTTP/1 request (RFC 9112), which is its target's or else that of its first Host field. Keeps
// nothing; for any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "base/bytes.h"

namespace braid {

// Where nothing has been found by then, there is nothing.
inline constexpr size_t kMaxFirstBytes = 16 << 10;

enum class FirstBytesVerdict : uint8_t {
  kMore,  // a name may still come
  kNone,  // there is none
  kFound,
};

struct FirstBytes {
  FirstBytesVerdict verdict = FirstBytesVerdict::kMore;
  // Of kFound: a host name of at most 253 bytes, in lower case, without a dot at the end; never an
  // address.
  std::string name;

  bool operator==(const FirstBytes&) const = default;
};

// Of all that has come, from the flow's beginning. Once the verdict is not kMore, nothing that
// follows changes it, nor the name.
FirstBytes ReadFirstBytes(Bytes so_far);

}  // namespace braid
