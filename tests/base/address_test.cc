// IP addresses, prefixes and endpoints: what is read, what is refused, what is printed.
#include "base/address.h"

#include <gtest/gtest.h>

#include <cstring>
#include <string>

#include "absl/hash/hash.h"

namespace braid::address_test {
namespace {

IpAddress Address(std::string_view text) {
  const auto address = IpAddress::Parse(text);
  EXPECT_TRUE(address) << text;
  return address.value_or(IpAddress{});
}

IpPrefix Prefix(std::string_view text) {
  const auto prefix = IpPrefix::Parse(text);
  EXPECT_TRUE(prefix) << text;
  return prefix.value_or(IpPrefix{});
}

TEST(IpAddress, IsPrintedAsItWasRead) {
  for (const char* text : {"10.0.0.1", "0.0.0.0", "255.255.255.255", "::", "::1", "fd00::1",
                           "fd77:1:2:3:4:5:6:7", "::ffff:10.0.0.1"}) {
    EXPECT_EQ(Address(text).ToString(), text);
  }
}

TEST(IpAddress, OfIpv4LeavesTheRestZero) {
  const IpAddress address = Address("10.1.2.3");
  EXPECT_TRUE(address.is_v4());
  EXPECT_EQ(address.bits(), 32);
  EXPECT_EQ(address.bytes, (std::array<uint8_t, 16>{10, 1, 2, 3}));
}

TEST(IpAddress, RefusesWhatIsNone) {
  for (const std::string& text :
       {std::string(), std::string("10.0.0"), std::string("10.0.0.256"), std::string("10.0.0.1 "),
        std::string("fe80::1%eth0"), std::string("[::1]"), std::string("10.0.0.1/24"),
        std::string("host"), std::string(200, '1'), std::string("10.0.0.1\0x", 10)}) {
    EXPECT_FALSE(IpAddress::Parse(text)) << text;
  }
}

TEST(IpAddress, TellsUnspecifiedFromUnset) {
  EXPECT_TRUE(Address("0.0.0.0").is_unspecified());
  EXPECT_TRUE(Address("::").is_unspecified());
  EXPECT_FALSE(Address("::1").is_unspecified());
  EXPECT_FALSE(IpAddress{}.is_unspecified());
  EXPECT_FALSE(IpAddress{}.is_set());
  EXPECT_EQ(IpAddress{}.ToString(), "none");
}

TEST(IpAddress, DiffersByFamilyAlone) {
  EXPECT_NE(Address("0.0.0.0"), Address("::"));
  EXPECT_NE(absl::HashOf(Address("0.0.0.0")), absl::HashOf(Address("::")));
  EXPECT_EQ(absl::HashOf(Address("fd00::1")), absl::HashOf(Address("fd00:0::1")));
}

TEST(IpPrefix, KeepsItsHostBitsUntilAskedForTheNetwork) {
  EXPECT_EQ(Prefix("10.77.3.1/24").ToString(), "10.77.3.1/24");
  EXPECT_EQ(Prefix("10.77.3.1/24").Network().ToString(), "10.77.3.0/24");
  EXPECT_EQ(Prefix("10.77.3.255/25").Network().ToString(), "10.77.3.128/25");
  EXPECT_EQ(Prefix("10.77.3.1/0").Network().ToString(), "0.0.0.0/0");
  EXPECT_EQ(Prefix("10.77.3.1/32").Network().ToString(), "10.77.3.1/32");
  EXPECT_EQ(Prefix("fd77::abcd/113").Network().ToString(), "fd77::8000/113");
  EXPECT_EQ(Prefix("fd77::1").ToString(), "fd77::1/128");
  EXPECT_EQ(Prefix("10.0.0.1").length, 32);
}

TEST(IpPrefix, RefusesALengthThatIsNone) {
  for (const char* text : {"10.0.0.0/33", "fd00::/129", "10.0.0.0/", "10.0.0.0/-1", "10.0.0.0/-0",
                           "10.0.0.0/+8", "10.0.0.0/8x", "10.0.0.0/ 8", "/8", "10.0.0.0/8/8"}) {
    EXPECT_FALSE(IpPrefix::Parse(text)) << text;
  }
}

TEST(IpPrefix, ContainsItsOwnFamilyOnly) {
  struct Case {
    const char* prefix;
    const char* address;
    bool contains;
  };
  for (const Case& c : {Case{"10.0.0.0/8", "10.255.0.1", true},
                        {"10.0.0.0/8", "11.0.0.0", false},
                        {"10.0.0.7/31", "10.0.0.6", true},
                        {"10.0.0.7/31", "10.0.0.8", false},
                        {"0.0.0.0/0", "1.2.3.4", true},
                        {"0.0.0.0/0", "::1", false},
                        {"::/0", "0.0.0.0", false},
                        {"::/0", "fd00::1", true},
                        {"fd77::/64", "fd77::ffff:1", true},
                        {"fd77::/64", "fd77:0:0:1::", false}}) {
    EXPECT_EQ(Prefix(c.prefix).Contains(Address(c.address)), c.contains)
        << c.prefix << " " << c.address;
  }
}

TEST(Endpoint, IsPrintedAsItWasRead) {
  for (const char* text : {"10.0.0.1:7700", "[fd00::1]:7700", "[::]:1", "0.0.0.0:65535"}) {
    const auto endpoint = Endpoint::Parse(text);
    ASSERT_TRUE(endpoint) << text;
    EXPECT_EQ(endpoint->ToString(), text);
  }
  EXPECT_EQ(Endpoint{}.ToString(), "none");
}

TEST(Endpoint, RefusesWhatIsNone) {
  for (const char* text : {"", ":", "10.0.0.1", "10.0.0.1:", "10.0.0.1:0", "10.0.0.1:65536",
                           "10.0.0.1:-1", "fd00::1:7700", "[fd00::1]", "[10.0.0.1]:7700", "[]:1",
                           "[fd00::1:7700", "10.0.0.1:77 ", "host:7700"}) {
    EXPECT_FALSE(Endpoint::Parse(text)) << text;
  }
}

TEST(Endpoint, ComesBackFromTheKernelsFormUnchanged) {
  Endpoint link_local = *Endpoint::Parse("[fe80::1]:7700");
  link_local.scope_id = 3;
  for (const Endpoint& endpoint : {*Endpoint::Parse("10.0.0.1:7700"), link_local}) {
    sockaddr_storage storage;
    std::memset(&storage, 0xff, sizeof(storage));
    const socklen_t length = endpoint.To(storage);
    EXPECT_EQ(length, endpoint.address.is_v4() ? sizeof(sockaddr_in) : sizeof(sockaddr_in6));
    EXPECT_EQ(Endpoint::From(storage), endpoint);
  }
  sockaddr_storage other{};
  other.ss_family = AF_UNIX;
  EXPECT_FALSE(Endpoint::From(other).is_set());
}

}  // namespace
}  // namespace braid::address_test
