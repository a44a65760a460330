// Decides, before anything expensive is done, whether an initiation may be worked on: when many
// arrive, cookies are asked for, and then each sender gets no more than its share. Fixed memory.
//
// A cookie proves address and port, so both have a share: a client behind a NAT is told apart from
// its neighbours by its port, and gets what it needs also where a neighbour asks too often. But one
// machine may hold all ports of its address. So what an address gets in all is bounded, to what is
// a small part of a core when nobody is known (one key agreement each), and less at once than may
// be under way. Both shares must have something left, and only then either gives: else somebody
// with one address and all its ports could use up the shares of all others.
#pragma once

#include <array>

#include "base/address.h"
#include "base/bytes.h"
#include "base/clock.h"
#include "base/limits.h"

namespace braid {

class FloodGuard {
 public:
  // Initiations a second from which on cookies are asked for: a small part of what a core works
  // off.
  static constexpr double kLoadPerSecond = 400;
  // Of one address and port under load, and how many at once.
  static constexpr double kPerSenderPerSecond = 20;
  static constexpr double kPerSenderBurst = 20;
  // Of one address: everybody behind a NAT.
  static constexpr double kPerAddressPerSecond = 1000;
  static constexpr double kPerAddressBurst = 500;
  static_assert(kPerAddressBurst < kMaxHandshakeJobs);

  FloodGuard();

  // An initiation with a good mac1 came.
  void OnInitiation(TimeNs now_ns);
  bool UnderLoad(TimeNs now_ns);
  // Whether `source`, which has proven by a cookie that it receives there, may have one more.
  bool Allow(const Endpoint& source, TimeNs now_ns);

 private:
  struct Bucket {
    double tokens;
    TimeNs filled_ns;

    void Fill(double per_second, double burst, TimeNs now_ns);
  };

  // Senders are hashed under a secret, so that nobody can choose whom to share a bucket with.
  static constexpr size_t kBuckets = 4096;
  using Buckets = std::array<Bucket, kBuckets>;
  Bucket& BucketOf(Buckets& buckets, Bytes name) const;

  std::array<uint8_t, 16> hash_key_;
  Bucket total_{kLoadPerSecond, 0};
  TimeNs loaded_until_ns_ = 0;
  Buckets by_sender_;
  Buckets by_address_;
};

}  // namespace braid
