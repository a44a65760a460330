#include "slowpath/mtu_search.h"

#include <algorithm>
#include <array>

namespace braid {
namespace {

// Of datagrams with their outer headers: Ethernet and its jumbo frames, PPPoE, tunnels of all
// kinds, mobile networks.
constexpr std::array<int, 15> kCommonMtus = {9000, 4352, 2002, 1500, 1492, 1480, 1472, 1460,
                                             1450, 1440, 1420, 1400, 1380, 1360, 1350};
constexpr uint16_t kSmall = 64;  // passes wherever anything does
constexpr uint32_t kGrain = 8;   // no nearer than this

}  // namespace

void MtuSearch::Start(uint16_t largest, int overhead_bytes, TimeNs now_ns) {
  largest_ = largest;
  overhead_bytes_ = overhead_bytes;
  floor_ = 0;
  ceiling_ = largest + 1u;
  stepped_ = false;
  if (mtu_ > largest) mtu_ = 0;
  if (largest < kMinMtu) {
    too_small_ = true;
    round_.clear();
    due_ns_ = kNever;
    return;
  }
  BeginRound({kSmall, kMinMtu, largest}, now_ns);
}

void MtuSearch::SuspectBlackHole(TimeNs now_ns) {
  const bool is_searching = !round_.empty();
  if (largest_ < kMinMtu || is_searching || mtu_ == 0) return;
  floor_ = 0;
  ceiling_ = largest_ + 1u;
  stepped_ = false;
  BeginRound({kSmall, kMinMtu, mtu_, largest_}, now_ns);
}

void MtuSearch::BeginRound(std::vector<uint16_t> sizes, TimeNs now_ns) {
  std::sort(sizes.begin() + 1, sizes.end());
  sizes.erase(std::unique(sizes.begin() + 1, sizes.end()), sizes.end());
  round_.clear();
  for (const uint16_t size : sizes) round_.push_back({size});
  next_ = 0;
  due_ns_ = now_ns;
}

std::optional<MtuSearch::Probe> MtuSearch::Next(TimeNs now_ns, DurationNs timeout_ns,
                                                absl::FunctionRef<uint64_t()> draw_token) {
  if (now_ns < due_ns_ || largest_ < kMinMtu) return std::nullopt;
  if (round_.empty()) SuspectBlackHole(now_ns);  // what was found, once more
  if (round_.empty()) Start(largest_, overhead_bytes_, now_ns);
  for (; next_ < round_.size(); ++next_) {
    Candidate& candidate = round_[next_];
    if (candidate.answered) continue;
    if (candidate.tries == kTries) {
      EndRound(now_ns);
      return std::nullopt;
    }
    ++candidate.tries;
    // Also a late answer to an earlier one tells that the size passes.
    if (candidate.token == 0) candidate.token = draw_token();
    ++next_;
    return Probe{candidate.token, candidate.mtu};
  }
  next_ = 0;
  due_ns_ = now_ns + timeout_ns;
  return std::nullopt;
}

bool MtuSearch::OnProbed(uint64_t token, uint16_t mtu, TimeNs now_ns) {
  const auto found = std::find_if(round_.begin(), round_.end(), [&](const Candidate& candidate) {
    return candidate.token != 0 && candidate.token == token && candidate.mtu == mtu;
  });
  if (found == round_.end()) return false;
  // What is smaller passes as well.
  for (Candidate& candidate : round_) {
    if (candidate.mtu <= mtu) candidate.answered = true;
  }
  // A larger one than is in use counts at once. Of a path of which nothing is known yet the small
  // ones come first.
  const bool is_largest = mtu == round_.back().mtu;
  if (mtu >= kMinMtu && (mtu_ != 0 || mtu == largest_)) {
    too_small_ = false;
    mtu_ = std::max(mtu_, mtu);
  }
  if (is_largest) EndRound(now_ns);
  return true;
}

void MtuSearch::EndRound(TimeNs now_ns) {
  if (!round_.front().answered) {
    // Silent, or it carries less than before: from the beginning, after a while.
    floor_ = 0;
    ceiling_ = largest_ + 1u;
    stepped_ = false;
    BeginRound({kSmall, kMinMtu, largest_}, now_ns + kRetryNs);
    return;
  }
  for (const Candidate& candidate : round_) {
    if (candidate.mtu < kMinMtu) continue;
    if (candidate.answered) {
      floor_ = std::max(floor_, candidate.mtu);
    } else {
      ceiling_ = std::min<uint32_t>(ceiling_, candidate.mtu);
    }
  }
  // Lost by chance, as the larger one shows.
  if (ceiling_ <= floor_) ceiling_ = floor_ + 1u;
  Settle(now_ns);
}

void MtuSearch::Settle(TimeNs now_ns) {
  if (floor_ == 0) {
    too_small_ = true;
    mtu_ = 0;
    BeginRound({kSmall, kMinMtu}, now_ns + kTooSmallRetryNs);
    ceiling_ = largest_ + 1u;
    return;
  }
  too_small_ = false;
  mtu_ = floor_;
  std::vector<uint16_t> sizes;
  if (!stepped_ && ceiling_ <= largest_) sizes = StepsBetween();
  stepped_ = stepped_ || ceiling_ <= largest_;
  if (sizes.empty() && ceiling_ - floor_ > kGrain) {
    sizes.push_back(
        static_cast<uint16_t>(ceiling_ > largest_ ? largest_ : (floor_ + ceiling_) / 2));
  }
  if (!sizes.empty()) {
    sizes.insert(sizes.begin(), floor_);
    return BeginRound(std::move(sizes), now_ns);
  }
  round_.clear();
  due_ns_ = now_ns + kRepeatNs;
}

std::vector<uint16_t> MtuSearch::StepsBetween() const {
  std::vector<uint16_t> steps;
  for (const int outer : kCommonMtus) {
    const int mtu = outer - overhead_bytes_;
    if (mtu > floor_ && mtu < static_cast<int>(ceiling_))
      steps.push_back(static_cast<uint16_t>(mtu));
  }
  return steps;
}

}  // namespace braid
