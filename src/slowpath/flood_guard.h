// Decides, before anything expensive is done, whether an initiation may be worked on: when many
// arrive, cookies are asked for, and one address gets no more than its share. Fixed memory.
#pragma once

#include <array>

#include "base/address.h"
#include "base/clock.h"

namespace braid {

class FloodGuard {
 public:
  // Initiations a second from which on cookies are asked for: a small part of what a core works
  // off.
  static constexpr double kLoadPerSecond = 400;
  // Of one address under load, and how many at once.
  static constexpr double kPerAddressPerSecond = 20;
  static constexpr double kPerAddressBurst = 20;

  FloodGuard();

  // An initiation with a good mac1 came.
  void OnInitiation(TimeNs now_ns);
  bool UnderLoad(TimeNs now_ns);
  // Whether `source`, which has proven its address by a cookie, may have one more.
  bool Allow(const IpAddress& source, TimeNs now_ns);

 private:
  struct Bucket {
    double tokens;
    TimeNs filled_ns;

    void Fill(double per_second, double burst, TimeNs now_ns);
  };

  // Addresses are hashed under a secret, so that nobody can choose whom to share a bucket with.
  static constexpr size_t kBuckets = 4096;
  std::array<uint8_t, 16> hash_key_;
  Bucket total_{kLoadPerSecond, 0};
  TimeNs loaded_until_ns_ = 0;
  std::array<Bucket, kBuckets> buckets_;
};

}  // namespace braid
