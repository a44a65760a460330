// How a link is written.
#include "linkem/link_settings.h"

#include <gtest/gtest.h>

namespace braid::linkem::link_settings_test {
namespace {

TEST(LinkSettings, AreReadWithTheirUnits) {
  LinkSettings link;
  ASSERT_TRUE(SetLink(link, "rate 1.5mbit delay 10ms jitter 500us loss 0.5% burst-loss 1%,8").ok());
  ASSERT_TRUE(SetLink(link, " queue 64KiB\treorder 2%,5ms ").ok());
  EXPECT_EQ(link.rate_bits_per_s, 1'500'000u);
  EXPECT_EQ(link.delay_ns, 10 * kMillisecondNs);
  EXPECT_EQ(link.jitter_ns, 500 * kMicrosecondNs);
  EXPECT_DOUBLE_EQ(link.loss, 0.005);
  EXPECT_DOUBLE_EQ(link.burst_loss, 0.01);
  EXPECT_EQ(link.burst_frames, 8);
  EXPECT_EQ(link.queue_bytes, 65'536u);
  EXPECT_DOUBLE_EQ(link.reorder, 0.02);
  EXPECT_EQ(link.reorder_ns, 5 * kMillisecondNs);
  EXPECT_EQ(DescribeLink(link),
            "rate 1.5mbit delay 10ms jitter 500us loss 0.5% burst-loss 1%,8 queue 65.536KB "
            "reorder 2%,5ms");
}

TEST(LinkSettings, TheDescriptionSetsTheSame) {
  LinkSettings link, again;
  ASSERT_TRUE(SetLink(link, "rate 20mbit delay 2s loss 3% burst-loss 9%,3 reorder 1%,1ms").ok());
  ASSERT_TRUE(SetLink(again, DescribeLink(link)).ok());
  EXPECT_EQ(link, again);
}

TEST(LinkSettings, AZeroNeedsNoUnitAndTakesBack) {
  LinkSettings link;
  ASSERT_TRUE(SetLink(link, "rate 5mbit loss 1% burst-loss 1%,8 reorder 1%,1ms delay 1s").ok());
  ASSERT_TRUE(SetLink(link, "rate 0 loss 0 burst-loss 0 reorder 0 delay 0").ok());
  EXPECT_EQ(DescribeLink(link), "rate unlimited");
  ASSERT_TRUE(SetLink(link, "rate 5mbit").ok());
  ASSERT_TRUE(SetLink(link, "rate unlimited").ok());
  EXPECT_EQ(link.rate_bits_per_s, 0u);
}

TEST(LinkSettings, MistakesNameTheKeyAndWhatItTakes) {
  const struct {
    const char* text;
    const char* told;
  } cases[] = {
      {"", "nothing to set"},
      {"speed 5mbit", "\"speed\" is not one of rate, delay"},
      {"rate", "rate: \"\" is not a rate"},
      {"rate 50", "rate: \"50\" is not a rate, such as 50mbit"},
      {"rate -5mbit", "is not a rate"},
      {"rate infmbit", "is not a rate"},
      {"rate 2000gbit", "is not a rate"},
      {"delay 61s", "at most 60s"},
      {"delay 10", "is not a time"},
      {"loss 101%", "from 0% to 100%"},
      {"loss 0.5", "from 0% to 100%"},
      {"burst-loss 1%", "a mean length"},
      {"burst-loss 1%,0.5", "a mean length"},
      {"burst-loss 90%,2", "at most 66.7% of the frames"},
      {"queue 5", "is not a size"},
      {"queue 5kbit", "is not a size"},
      {"reorder 1%", "a time to hold back for"},
  };
  for (const auto& one : cases) {
    LinkSettings link;
    const absl::Status status = SetLink(link, one.text);
    EXPECT_FALSE(status.ok()) << one.text;
    EXPECT_NE(std::string(status.message()).find(one.told), std::string::npos) << status;
  }
}

TEST(LinkSettings, NothingIsSetWhenOneIsWrong) {
  LinkSettings link;
  EXPECT_FALSE(SetLink(link, "rate 5mbit loss 101%").ok());
  EXPECT_EQ(link, LinkSettings());
}

}  // namespace
}  // namespace braid::linkem::link_settings_test
