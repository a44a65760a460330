// How often a value turns between rising and falling: by no less than a given amount, so noise does
// not count. Any unit; one thread.
#pragma once

namespace braid {

class Turns {
 public:
  void Add(double value, double least) {
    smooth_ += kWeight * (value - smooth_);
    const double onward = rises_ ? smooth_ - extreme_ : extreme_ - smooth_;
    const bool turns = onward < -least;
    if (turns || onward > 0) extreme_ = smooth_;
    if (!turns) return;
    rises_ = !rises_;
    ++count_;
  }

  // Since the last time that this was called.
  int Take() {
    const int count = count_;
    count_ = 0;
    return count;
  }

 private:
  static constexpr double kWeight = 0.4;  // of each value

  double smooth_ = 0;
  double extreme_ = 0;  // the highest while it rises, the lowest while it falls
  bool rises_ = true;
  int count_ = 0;
};

}  // namespace braid
