// Ranges of numbers that are known, apart from each other.
#pragma once

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <map>

namespace braid::sim {

class RangeSet {
 public:
  struct Range {
    uint32_t begin;
    uint32_t end;
  };

  // Calls added(number) for each that was not there.
  template <typename F>
  void Add(uint32_t begin, uint32_t end, F&& added) {
    if (begin >= end) return;
    auto at = ends_.upper_bound(begin);
    uint32_t from = begin;
    uint32_t joined_begin = begin;
    uint32_t joined_end = end;
    if (at != ends_.begin()) {
      const auto before = std::prev(at);
      if (before->second >= begin) {
        joined_begin = before->first;
        joined_end = std::max(joined_end, before->second);
        from = before->second;
        at = ends_.erase(before);
      }
    }
    while (at != ends_.end() && at->first <= joined_end) {
      for (; from < std::min(at->first, end); ++from) added(from);
      from = std::max(from, at->second);
      joined_end = std::max(joined_end, at->second);
      at = ends_.erase(at);
    }
    for (; from < end; ++from) added(from);
    ends_[joined_begin] = joined_end;
  }
  void Add(uint32_t number) {
    Add(number, number + 1, [](uint32_t) {});
  }

  bool Has(uint32_t number) const {
    const auto at = ends_.upper_bound(number);
    return at != ends_.begin() && std::prev(at)->second > number;
  }

  // The one that the number is in; empty when there is none.
  Range RangeOf(uint32_t number) const {
    const auto at = ends_.upper_bound(number);
    if (at == ends_.begin() || std::prev(at)->second <= number) return {number, number};
    return {std::prev(at)->first, std::prev(at)->second};
  }

  // Forgets what is below.
  void EraseBelow(uint32_t number) {
    while (!ends_.empty() && ends_.begin()->first < number) {
      const uint32_t end = ends_.begin()->second;
      ends_.erase(ends_.begin());
      if (end > number) ends_[number] = end;
    }
  }

  bool empty() const { return ends_.empty(); }
  size_t size() const { return ends_.size(); }

 private:
  std::map<uint32_t, uint32_t> ends_;  // by where they begin
};

}  // namespace braid::sim
