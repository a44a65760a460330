#include "slowpath/sequence_meter.h"

#include <gtest/gtest.h>

#include <initializer_list>

namespace braid::sequence_meter_test {
namespace {

SequenceMeter After(std::initializer_list<uint64_t> sequences) {
  SequenceMeter meter;
  for (const uint64_t each : sequences) meter.Add(each);
  return meter;
}

TEST(SequenceMeterTest, EverythingInOrderIsNoLoss) {
  const SequenceMeter meter = After({0, 1, 2, 3});
  EXPECT_EQ(meter.received(), 4u);
  EXPECT_EQ(meter.Lost(), 0u);
  EXPECT_EQ(meter.reordered(), 0u);
  EXPECT_EQ(meter.doubled(), 0u);
}

TEST(SequenceMeterTest, GapsAreLostAlsoBeforeTheFirstAndBehindTheLast) {
  const SequenceMeter meter = After({2, 5});
  EXPECT_EQ(meter.received(), 2u);
  EXPECT_EQ(meter.Lost(), 4u);
  EXPECT_EQ(meter.Lost(10), 8u);
  EXPECT_EQ(meter.Lost(3), 4u);  // more must have been sent than the sender says
}

TEST(SequenceMeterTest, WhatComesLateIsNotLost) {
  const SequenceMeter meter = After({0, 2, 3, 1});
  EXPECT_EQ(meter.Lost(), 0u);
  EXPECT_EQ(meter.reordered(), 1u);
  EXPECT_EQ(meter.doubled(), 0u);
}

TEST(SequenceMeterTest, DoublesDoNotMakeUpForLoss) {
  const SequenceMeter meter = After({0, 0, 2, 2, 2});
  EXPECT_EQ(meter.received(), 2u);
  EXPECT_EQ(meter.doubled(), 3u);
  EXPECT_EQ(meter.Lost(), 1u);
}

TEST(SequenceMeterTest, TheWindowMovesOn) {
  SequenceMeter meter;
  for (uint64_t each = 0; each < 500'000; ++each) {
    if (each % 10 != 0) meter.Add(each);
  }
  EXPECT_EQ(meter.received(), 450'000u);
  EXPECT_EQ(meter.Lost(), 50'000u);
  EXPECT_EQ(meter.doubled(), 0u);
  meter.Add(490'000);
  EXPECT_EQ(meter.reordered(), 1u);
  meter.Add(490'000);
  EXPECT_EQ(meter.doubled(), 1u);
}

TEST(SequenceMeterTest, NumbersThatSomebodyMadeUpDoNoHarm) {
  const SequenceMeter meter = After({UINT64_MAX, UINT64_MAX - 1, 0, uint64_t{1} << 40});
  EXPECT_EQ(meter.received(), 3u);
  EXPECT_EQ(meter.expected(), UINT64_MAX);
  EXPECT_EQ(meter.Lost(), UINT64_MAX - 3);
}

}  // namespace
}  // namespace braid::sequence_meter_test
