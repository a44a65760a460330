#include "linkem/frame_pool.h"

#include <gtest/gtest.h>

#include <cstring>
#include <vector>

namespace braid::linkem::frame_pool_test {
namespace {

TEST(FramePool, GivesRoomForEverySizeAndTakesItBack) {
  FramePool pool;
  for (size_t bytes = 1; bytes < 70'000; bytes = bytes * 5 / 4 + 1) {
    FramePtr frame = pool.Take(bytes);
    ASSERT_EQ(frame->bytes, bytes);
    std::memset(frame->data(), 0xaa, bytes);  // a sanitizer sees what is beyond
    Frame* block = frame.get();
    frame.reset();
    frame = pool.Take(bytes);
    EXPECT_EQ(frame.get(), block) << "was not used again";
  }
}

TEST(FramePool, IsBounded) {
  constexpr size_t kBytes = (size_t{1} << 30) - 1000;
  FramePool pool;
  FramePtr all = pool.Take(kBytes);
  ASSERT_NE(all, nullptr);
  EXPECT_EQ(pool.Take(1), nullptr);
  all.reset();
  EXPECT_NE(pool.Take(kBytes), nullptr);
}

}  // namespace
}  // namespace braid::linkem::frame_pool_test
