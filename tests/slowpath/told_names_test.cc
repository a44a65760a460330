// A client is told names; others are not meant by them; what is old goes.
#include "slowpath/told_names.h"

#include <gtest/gtest.h>

namespace braid::told_names_test {
namespace {

IpAddress Address(const char* text) { return *IpAddress::Parse(text); }

const IpAddress kClient = Address("10.0.0.1");
const IpAddress kOther = Address("10.0.0.2");
const IpAddress kServer = Address("192.0.2.1");

TEST(ToldNames, AreThoseOfTheClientThatWasToldThem) {
  ToldNames names;
  names.Tell(kClient, "a.test", kServer, 10);
  EXPECT_EQ(names.NameOf(kClient, kServer, 9), "a.test");
  EXPECT_EQ(names.NameOf(kClient, kServer, 10), "");
  EXPECT_EQ(names.NameOf(kOther, kServer, 9), "");
  EXPECT_EQ(names.NameOf(kClient, kOther, 9), "");
  names.Tell(kOther, "evil.test", kServer, 10);
  names.Tell(kClient, "b.test", kServer, 20);
  EXPECT_EQ(names.NameOf(kClient, kServer, 15), "b.test") << "the last one counts";
}

TEST(ToldNames, TheOneThatWasToldLongestAgoMakesRoom) {
  ToldNames names(2);
  names.Tell(kClient, "a.test", kServer, 10);
  names.Tell(kOther, "b.test", kServer, 10);
  names.Tell(kClient, "a.test", kServer, 10);
  names.Tell(kClient, "c.test", kOther, 10);
  EXPECT_EQ(names.size(), 2u);
  EXPECT_EQ(names.NameOf(kClient, kServer, 0), "a.test");
  EXPECT_EQ(names.NameOf(kOther, kServer, 0), "");
  EXPECT_EQ(names.NameOf(kClient, kOther, 0), "c.test");
}

}  // namespace
}  // namespace braid::told_names_test
