#include "slowpath/cpu_list.h"

#include <gtest/gtest.h>

namespace braid::cpu_list_test {
namespace {

using Cpus = std::vector<int>;

TEST(CpuList, IsReadAsTheKernelWritesIt) {
  EXPECT_EQ(ParseCpuList(""), Cpus());
  EXPECT_EQ(ParseCpuList("0"), Cpus({0}));
  EXPECT_EQ(ParseCpuList("0-3,8,10-11"), Cpus({0, 1, 2, 3, 8, 10, 11}));
  EXPECT_EQ(ParseCpuList("5,1-2,1"), Cpus({1, 2, 5}));
  EXPECT_EQ(ParseCpuList("8191"), Cpus({8191}));
}

TEST(CpuList, IsRefusedWhenItIsNone) {
  for (const char* text : {"x", "1-", "-1", "3-1", "1,,2", "1,", ",", "1 2", "8192", "0-99999999",
                           "99999999999999999999", "0-8191,0-8191", "1-2-3"}) {
    EXPECT_FALSE(ParseCpuList(text).has_value()) << text;
  }
}

TEST(CpuMask, IsReadAsTheKernelWritesIt) {
  EXPECT_EQ(ParseCpuMask(""), Cpus());
  EXPECT_EQ(ParseCpuMask("0"), Cpus());
  EXPECT_EQ(ParseCpuMask("00000000,00000003"), Cpus({0, 1}));
  EXPECT_EQ(ParseCpuMask("1,80000000,00000000"), Cpus({63, 64}));
}

TEST(CpuMask, IsRefusedWhenItIsNone) {
  std::string long_mask = "1";
  for (int i = 0; i < 256; ++i) long_mask += ",00000000";
  for (const std::string& text :
       {std::string("g"), std::string("1,"), std::string(",1"), std::string("-1"),
        std::string("123456789"), std::string("0x3"), long_mask}) {
    EXPECT_FALSE(ParseCpuMask(text).has_value()) << text;
  }
}

TEST(CpuList, IsWrittenAsItIsRead) {
  for (const Cpus& cpus : {Cpus(), Cpus({0}), Cpus({0, 1}), Cpus({0, 2, 3, 31, 32, 63, 64, 200})}) {
    EXPECT_EQ(ParseCpuList(FormatCpuList(cpus)), cpus);
    EXPECT_EQ(ParseCpuMask(FormatCpuMask(cpus)), cpus);
  }
  EXPECT_EQ(FormatCpuList({0, 1, 2, 5, 7, 8}), "0-2,5,7-8");
  EXPECT_EQ(FormatCpuMask({}), "0");
  EXPECT_EQ(FormatCpuMask({0, 33}), "2,00000001");
}

}  // namespace
}  // namespace braid::cpu_list_test
