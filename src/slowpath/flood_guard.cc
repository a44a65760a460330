#include "slowpath/flood_guard.h"

#include <sodium.h>

#include <algorithm>

#include "base/bytes.h"

namespace braid {
namespace {

// Once loaded, cookies are asked for that much longer.
constexpr DurationNs kStaysLoadedNs = kSecondNs;

}  // namespace

FloodGuard::FloodGuard() {
  static_assert(sizeof(hash_key_) == crypto_shorthash_KEYBYTES);
  randombytes_buf(hash_key_.data(), hash_key_.size());
  buckets_.fill({kPerAddressBurst, 0});
}

void FloodGuard::Bucket::Fill(double per_second, double burst, TimeNs now_ns) {
  const double elapsed_s = static_cast<double>(now_ns - filled_ns) / kSecondNs;
  tokens = std::min(burst, tokens + elapsed_s * per_second);
  filled_ns = now_ns;
}

void FloodGuard::OnInitiation(TimeNs now_ns) {
  total_.Fill(kLoadPerSecond, kLoadPerSecond, now_ns);
  if (total_.tokens >= 1) {
    total_.tokens -= 1;
  } else {
    loaded_until_ns_ = now_ns + kStaysLoadedNs;
  }
}

bool FloodGuard::UnderLoad(TimeNs now_ns) { return now_ns < loaded_until_ns_; }

bool FloodGuard::Allow(const IpAddress& source, TimeNs now_ns) {
  uint8_t hash[crypto_shorthash_BYTES];
  // Of IPv6 the network counts: a host may have any address in it.
  crypto_shorthash(hash, source.bytes.data(), source.is_v4() ? 4 : 8, hash_key_.data());
  Bucket& bucket = buckets_[LoadNative<uint64_t>(hash) % kBuckets];
  bucket.Fill(kPerAddressPerSecond, kPerAddressBurst, now_ns);
  if (bucket.tokens < 1) return false;
  bucket.tokens -= 1;
  return true;
}

}  // namespace braid
