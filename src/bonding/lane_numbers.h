// Where the packets of a bond's lanes get their numbers from. A packet has its number as soon as
// its path is chosen, which may be a while before it leaves.
#pragma once

#include <cstdint>

namespace braid {

class LaneNumbers {
 public:
  // The lane's next sequence. It is used by nobody else, even if the packet never leaves.
  virtual uint64_t Take(uint8_t lane) = 0;

 protected:
  ~LaneNumbers() = default;
};

}  // namespace braid
