#include "slowpath/flood_guard.h"

#include <sodium.h>

#include <algorithm>

namespace braid {
namespace {

// Once loaded, cookies are asked for that much longer.
constexpr DurationNs kStaysLoadedNs = kSecondNs;

}  // namespace

FloodGuard::FloodGuard() {
  static_assert(sizeof(hash_key_) == crypto_shorthash_KEYBYTES);
  randombytes_buf(hash_key_.data(), hash_key_.size());
  by_sender_.fill({kPerSenderBurst, 0});
  by_address_.fill({kPerAddressBurst, 0});
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

bool FloodGuard::Allow(const Endpoint& source, TimeNs now_ns) {
  std::array<uint8_t, 16 + 2> name;
  std::copy(source.address.bytes.begin(), source.address.bytes.end(), name.begin());
  StoreBe16(&name[16], source.port);
  Bucket& sender = BucketOf(by_sender_, name);
  // Of IPv6 the network counts: a host may have any address in it.
  Bucket& address = BucketOf(by_address_, Bytes(name).first(source.address.is_v4() ? 4 : 8));
  sender.Fill(kPerSenderPerSecond, kPerSenderBurst, now_ns);
  address.Fill(kPerAddressPerSecond, kPerAddressBurst, now_ns);
  if (sender.tokens < 1 || address.tokens < 1) return false;
  sender.tokens -= 1;
  address.tokens -= 1;
  return true;
}

FloodGuard::Bucket& FloodGuard::BucketOf(Buckets& buckets, Bytes name) const {
  uint8_t hash[crypto_shorthash_BYTES];
  crypto_shorthash(hash, name.data(), name.size(), hash_key_.data());
  return buckets[LoadNative<uint64_t>(hash) % kBuckets];
}

}  // namespace braid
