// The reason for which a datagram is dropped whose header is no good: the same for the workers and
// for the slow path.
#pragma once

#include "base/counters.h"
#include "fastpath/wire.h"

namespace braid {

// `verdict` is not kOk.
inline Drop DropOf(HeaderVerdict verdict) {
  switch (verdict) {
    case HeaderVerdict::kBadMagic:
      return Drop::bad_magic;
    case HeaderVerdict::kBadVersion:
      return Drop::bad_version;
    case HeaderVerdict::kBadKind:
      return Drop::bad_kind;
    case HeaderVerdict::kBadFlags:
      return Drop::bad_flags;
    default:
      return Drop::short_datagram;
  }
}

}  // namespace braid
