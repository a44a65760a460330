// The TUN device's place in the system, each test in a network of its own.
#include "slowpath/net_setup.h"

#include <gtest/gtest.h>
#include <ifaddrs.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <netlink/msg.h>
#include <netlink/netlink.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <set>

#include "base/limits.h"
#include "io/tun.h"
#include "io/vnet_header.h"
#include "support/network.h"

namespace braid::net_setup_test {
namespace {

using testing::InFreshNetwork;

constexpr char kName[] = "braid9";

IpPrefix Prefix(const char* text) { return IpPrefix::Parse(text).value(); }
Endpoint At(const char* text) { return Endpoint::Parse(text).value(); }

struct Link {
  unsigned flags = 0;
  std::array<uint32_t, IFLA_MAX + 1> values{};  // of the attributes that have four bytes
};

int KeepLink(nl_msg* message, void* to) {
  Link& link = *static_cast<Link*>(to);
  std::array<nlattr*, IFLA_MAX + 1> attributes{};
  if (nlmsg_parse(nlmsg_hdr(message), sizeof(ifinfomsg), attributes.data(), IFLA_MAX, nullptr) <
      0) {
    return NL_SKIP;
  }
  link.flags = static_cast<ifinfomsg*>(nlmsg_data(nlmsg_hdr(message)))->ifi_flags;
  for (const int type : {int{IFLA_MTU}, int{IFLA_TXQLEN}, int{IFLA_GSO_MAX_SIZE}}) {
    nlattr* attribute = attributes[static_cast<size_t>(type)];
    if (attribute != nullptr) link.values[static_cast<size_t>(type)] = nla_get_u32(attribute);
  }
  return NL_OK;
}

Link LinkOf(const char* name) {
  Link link;
  nl_sock* socket = nl_socket_alloc();
  EXPECT_EQ(nl_connect(socket, NETLINK_ROUTE), 0);
  nl_socket_modify_cb(socket, NL_CB_VALID, NL_CB_CUSTOM, KeepLink, &link);
  ifinfomsg ask{};
  ask.ifi_index = static_cast<int>(if_nametoindex(name));
  EXPECT_GE(nl_send_simple(socket, RTM_GETLINK, 0, &ask, sizeof(ask)), 0);
  EXPECT_EQ(nl_recvmsgs_default(socket), 0);
  nl_socket_free(socket);
  return link;
}

std::set<std::string> AddressesOf(const std::string& name) {
  std::set<std::string> found;
  ifaddrs* all = nullptr;
  EXPECT_EQ(getifaddrs(&all), 0);
  for (const ifaddrs* one = all; one != nullptr; one = one->ifa_next) {
    if (name != one->ifa_name || one->ifa_addr == nullptr) continue;
    if (one->ifa_addr->sa_family != AF_INET && one->ifa_addr->sa_family != AF_INET6) continue;
    sockaddr_storage address{};
    const bool v6 = one->ifa_addr->sa_family == AF_INET6;
    std::memcpy(&address, one->ifa_addr, v6 ? sizeof(sockaddr_in6) : sizeof(sockaddr_in));
    found.insert(Endpoint::From(address).address.ToString());
  }
  freeifaddrs(all);
  return found;
}

TunDevice Tun() {
  auto device = OpenTun(kName, 1, true);
  EXPECT_TRUE(device.ok()) << device.status();
  return device.ok() ? *std::move(device) : TunDevice{};
}

TEST(NetSetup, GivesTheDeviceItsAddressesItsMtuAndBringsItUp) {
  InFreshNetwork([] {
    const TunDevice device = Tun();
    const absl::Status status =
        SetUpDevice(kName, {Prefix("10.77.0.1/24"), Prefix("fd77::1/64")}, 1400);
    ASSERT_TRUE(status.ok()) << status;
    const Link link = LinkOf(kName);
    EXPECT_NE(link.flags & IFF_UP, 0u);
    EXPECT_EQ(link.values[IFLA_MTU], 1400u);
    // Less would make the kernel cut what a gateway's card has joined before it reaches the device.
    EXPECT_EQ(link.values[IFLA_GSO_MAX_SIZE], 65536u);
    const auto addresses = AddressesOf(kName);
    EXPECT_EQ(addresses.count("10.77.0.1"), 1u);
    EXPECT_EQ(addresses.count("fd77::1"), 1u);
    // Their networks are reached through it.
    EXPECT_EQ(LocalAddressTowards(At("10.77.0.9:1"), {}, "").ToString(), "10.77.0.1");
    EXPECT_EQ(LocalAddressTowards(At("[fd77::9]:1"), {}, "").ToString(), "fd77::1");
  });
}

TEST(NetSetup, AnIpv6AddressIsUsableAtOnce) {
  InFreshNetwork([] {
    const TunDevice device = Tun();
    ASSERT_TRUE(SetUpDevice(kName, {Prefix("fd77::1/64")}, 1400).ok());
    const UniqueFd fd(socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    sockaddr_storage address;
    const socklen_t length = Endpoint{IpAddress::Parse("fd77::1").value(), 5000}.To(address);
    EXPECT_EQ(bind(fd.get(), reinterpret_cast<sockaddr*>(&address), length), 0);
  });
}

TEST(NetSetup, ChangesTheMtuOfADeviceThatIsUp) {
  InFreshNetwork([] {
    const TunDevice device = Tun();
    ASSERT_TRUE(SetUpDevice(kName, {Prefix("10.77.0.1/24")}, 1432).ok());
    for (const int mtu : {1280, 9000, 1412}) {
      ASSERT_TRUE(SetDeviceMtu(kName, mtu).ok()) << mtu;
      const Link link = LinkOf(kName);
      EXPECT_EQ(link.values[IFLA_MTU], static_cast<uint32_t>(mtu));
      EXPECT_EQ(link.values[IFLA_GSO_MAX_SIZE], 65536u);
      EXPECT_EQ(AddressesOf(kName).count("10.77.0.1"), 1u);
    }
  });
}

TEST(NetSetup, TheLargestMtuIsTaken) {
  InFreshNetwork([] {
    const TunDevice device = Tun();
    const absl::Status status = SetUpDevice(kName, {}, static_cast<int>(kMaxMtu));
    EXPECT_TRUE(status.ok()) << status;
  });
}

TEST(NetSetup, SaysWhichSettingTheKernelRefuses) {
  InFreshNetwork([] {
    absl::Status status = SetUpDevice(kName, {}, 1400);
    EXPECT_FALSE(status.ok());
    EXPECT_NE(status.message().find(kName), std::string::npos) << status;
    const TunDevice device = Tun();
    status = SetUpDevice(kName, {}, 70'000);
    EXPECT_NE(status.message().find("network.mtu"), std::string::npos) << status;
    status = SetUpDevice(kName, {Prefix("10.77.0.1/24"), Prefix("10.77.0.1/24")}, 1400);
    EXPECT_NE(status.message().find("network.addresses"), std::string::npos) << status;
    EXPECT_NE(status.message().find("10.77.0.1/24"), std::string::npos) << status;
  });
}

TEST(NetSetup, CountsWhatTheDevicesQueueHadNoRoomFor) {
  InFreshNetwork([] {
    EXPECT_FALSE(DeviceQueueDrops(kName).ok());
    const TunDevice device = Tun();
    ASSERT_TRUE(SetUpDevice(kName, {Prefix("10.77.0.1/24")}, 1400).ok());
    EXPECT_EQ(DeviceQueueDrops(kName).value(), 0u);
    // Nobody reads the queue, so what it has no room for is dropped.
    const UniqueFd fd(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    sockaddr_storage address;
    const socklen_t length = At("10.77.0.9:5000").To(address);
    constexpr uint64_t kSent = 3000;
    for (uint64_t i = 0; i < kSent; ++i) {
      ASSERT_EQ(sendto(fd.get(), "x", 1, 0, reinterpret_cast<sockaddr*>(&address), length), 1);
    }
    uint64_t queued = 0;
    std::array<uint8_t, 2048> packet;
    while (read(device.queues[0].get(), packet.data(), packet.size()) > 0) {
      queued += packet[kVnetHeaderBytes] >> 4 == 4;
    }
    const uint64_t drops = DeviceQueueDrops(kName).value();
    EXPECT_GT(queued, 0u);
    // The kernel may have had packets of its own for it.
    EXPECT_GE(drops, kSent - queued);
    EXPECT_LE(drops, kSent - queued + 100);
  });
}

TEST(NetSetup, EverythingGoesAwayWithTheDevice) {
  InFreshNetwork([] {
    {
      const TunDevice device = Tun();
      ASSERT_TRUE(SetUpDevice(kName, {Prefix("10.77.0.1/24"), Prefix("fd77::1/64")}, 1400).ok());
    }
    EXPECT_EQ(if_nametoindex(kName), 0u);
    EXPECT_FALSE(LocalAddressTowards(At("10.77.0.9:1"), {}, "").is_set());
  });
}

TEST(LocalAddressTowards, IsThatOfTheWayThatWouldBeTaken) {
  InFreshNetwork([] {
    const TunDevice device = Tun();
    ASSERT_TRUE(SetUpDevice(kName, {Prefix("10.77.0.1/24"), Prefix("10.78.0.1/24")}, 1350).ok());
    const IpAddress other = IpAddress::Parse("10.78.0.1").value();
    EXPECT_EQ(LocalAddressTowards(At("10.77.0.9:1"), {}, kName).ToString(), "10.77.0.1");
    EXPECT_EQ(LocalAddressTowards(At("10.77.0.9:1"), other, ""), other);
    EXPECT_EQ(LocalAddressTowards(At("127.0.0.1:1"), {}, "").ToString(), "127.0.0.1");
    EXPECT_FALSE(LocalAddressTowards(At("10.99.0.1:1"), {}, "").is_set()) << "no route";
    const IpAddress not_ours = IpAddress::Parse("10.77.0.5").value();
    EXPECT_FALSE(LocalAddressTowards(At("10.77.0.9:1"), not_ours, "").is_set());
  });
}

}  // namespace
}  // namespace braid::net_setup_test
