#include "slowpath/net_setup.h"

#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <netlink/msg.h>
#include <netlink/route/addr.h>
#include <netlink/route/link.h>
#include <sys/socket.h>

#include "base/c_pointer.h"
#include "base/limits.h"
#include "io/udp.h"
#include "io/unique_fd.h"
#include "slowpath/netlink.h"

namespace braid {
namespace {

constexpr int kTxQueuePackets = 1000;

// A socket of rtnetlink and the device's index there.
struct Device {
  NetlinkSocket socket;
  int index = 0;
};

absl::StatusOr<Device> Open(const std::string& name) {
  auto socket = OpenRtnetlink();
  if (!socket.ok()) return socket.status();
  Device device{*std::move(socket), static_cast<int>(if_nametoindex(name.c_str()))};
  if (device.index == 0) return absl::NotFoundError("device \"" + name + "\" has vanished");
  return device;
}

absl::Status SetLink(const Device& device, const std::string& name, int mtu) {
  const NetlinkMessage message(nlmsg_alloc_simple(RTM_NEWLINK, NLM_F_REQUEST | NLM_F_ACK));
  ifinfomsg header{};
  header.ifi_index = device.index;
  header.ifi_flags = IFF_UP;
  header.ifi_change = IFF_UP;
  nlmsg_append(message.get(), &header, sizeof(header), NLMSG_ALIGNTO);
  nla_put_u32(message.get(), IFLA_MTU, static_cast<uint32_t>(mtu));
  nla_put_u32(message.get(), IFLA_TXQLEN, kTxQueuePackets);
  int result = nl_send_auto(device.socket.get(), message.get());
  if (result >= 0) result = nl_wait_for_ack(device.socket.get());
  if (result < 0) {
    return NetlinkError(
        result, "network.mtu: cannot bring up \"" + name + "\" with MTU " + std::to_string(mtu));
  }
  return absl::OkStatus();
}

enum class Use : bool { kAny, kByNameOnly };  // as the source of what asks for none

absl::Status AddAddress(const Device& device, const IpPrefix& prefix, Use use) {
  const CPointer<rtnl_addr, rtnl_addr_put> address(rtnl_addr_alloc());
  const NetlinkAddress local = ToNetlink(prefix);
  rtnl_addr_set_ifindex(address.get(), device.index);
  rtnl_addr_set_local(address.get(), local.get());
  // Nobody else is on this link whose address it could be.
  if (prefix.address.is_v6()) rtnl_addr_set_flags(address.get(), IFA_F_NODAD);
  // Of IPv4 addresses the one that was there first is.
  if (use == Use::kByNameOnly && prefix.address.is_v6()) {
    rtnl_addr_set_preferred_lifetime(address.get(), 0);
    rtnl_addr_set_valid_lifetime(address.get(), UINT32_MAX);
  }
  const int result = rtnl_addr_add(device.socket.get(), address.get(), 0);
  if (result < 0) {
    return NetlinkError(result, "network.addresses: cannot add " + prefix.ToString());
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status SetUpDevice(const std::string& name, const std::vector<IpPrefix>& addresses, int mtu) {
  const auto device = Open(name);
  if (!device.ok()) return device.status();
  for (const IpPrefix& prefix : addresses) {
    if (absl::Status status = AddAddress(*device, prefix, Use::kAny); !status.ok()) return status;
  }
  return SetLink(*device, name, mtu);
}

absl::Status AddInnerAddresses(const std::string& name, const std::vector<IpPrefix>& addresses) {
  const auto device = Open(name);
  if (!device.ok()) return device.status();
  for (const IpPrefix& prefix : addresses) {
    if (absl::Status status = AddAddress(*device, prefix, Use::kByNameOnly); !status.ok()) {
      return status;
    }
  }
  return absl::OkStatus();
}

absl::Status SetDeviceMtu(const std::string& name, int mtu) {
  const auto device = Open(name);
  if (!device.ok()) return device.status();
  return SetLink(*device, name, mtu);
}

absl::StatusOr<uint64_t> DeviceQueueDrops(const std::string& name) {
  const auto device = Open(name);
  if (!device.ok()) return device.status();
  rtnl_link* found = nullptr;
  const int result = rtnl_link_get_kernel(device->socket.get(), device->index, nullptr, &found);
  if (result < 0) return NetlinkError(result, "cannot read the counters of \"" + name + "\"");
  const CPointer<rtnl_link, rtnl_link_put> link(found);
  return rtnl_link_get_stat(link.get(), RTNL_LINK_TX_DROPPED);
}

IpAddress LocalAddressTowards(const Endpoint& remote, const IpAddress& local,
                              const std::string& interface) {
  const UniqueFd fd = ConnectUdp(remote, local, interface);
  sockaddr_storage address{};
  socklen_t length = sizeof(address);
  if (!fd || getsockname(fd.get(), reinterpret_cast<sockaddr*>(&address), &length) != 0) return {};
  return Endpoint::From(address).address;
}

}  // namespace braid
