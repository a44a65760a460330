#include "slowpath/net_snapshot.h"

#include <arpa/inet.h>
#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <netlink/msg.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <memory>
#include <string_view>

#include "absl/status/status.h"
#include "io/own_mark.h"
#include "io/unique_fd.h"
#include "slowpath/netlink.h"

namespace braid {
namespace {

IpAddress AddressOf(int family, const nlattr* attribute) {
  const auto* bytes = static_cast<const uint8_t*>(nla_data(attribute));
  if (family == AF_INET && nla_len(attribute) >= 4) return IpAddress::V4(bytes);
  if (family == AF_INET6 && nla_len(attribute) >= 16) return IpAddress::V6(bytes);
  return {};
}

template <int kMax, typename Header>
bool Parse(nlmsghdr* message, std::array<nlattr*, kMax + 1>& attributes) {
  return nlmsg_parse(message, sizeof(Header), attributes.data(), kMax, nullptr) >= 0;
}

bool IsDummy(nlattr* link_info) {
  if (link_info == nullptr) return false;
  nlattr* kind =
      nla_find(static_cast<nlattr*>(nla_data(link_info)), nla_len(link_info), IFLA_INFO_KIND);
  return kind != nullptr && std::string_view(nla_get_string(kind)) == "dummy";
}

void TakeLink(nlmsghdr* message, NetSnapshot& to) {
  std::array<nlattr*, IFLA_MAX + 1> attributes{};
  if (!Parse<IFLA_MAX, ifinfomsg>(message, attributes) || attributes[IFLA_IFNAME] == nullptr)
    return;
  const auto* header = static_cast<const ifinfomsg*>(nlmsg_data(message));
  NetLink link;
  link.index = header->ifi_index;
  link.name = nla_get_string(attributes[IFLA_IFNAME]);
  link.up = (header->ifi_flags & IFF_UP) != 0 && (header->ifi_flags & IFF_RUNNING) != 0;
  link.loopback = (header->ifi_flags & IFF_LOOPBACK) != 0 || IsDummy(attributes[IFLA_LINKINFO]);
  if (attributes[IFLA_MTU] != nullptr)
    link.mtu = static_cast<int>(nla_get_u32(attributes[IFLA_MTU]));
  to.links.push_back(std::move(link));
}

void TakeAddress(nlmsghdr* message, NetSnapshot& to) {
  std::array<nlattr*, IFA_MAX + 1> attributes{};
  if (!Parse<IFA_MAX, ifaddrmsg>(message, attributes)) return;
  const auto* header = static_cast<const ifaddrmsg*>(nlmsg_data(message));
  const uint32_t flags =
      attributes[IFA_FLAGS] != nullptr ? nla_get_u32(attributes[IFA_FLAGS]) : header->ifa_flags;
  const bool is_tentative = (flags & IFA_F_TENTATIVE) != 0 && (flags & IFA_F_OPTIMISTIC) == 0;
  if (is_tentative || (flags & IFA_F_DADFAILED) != 0) return;
  // On a point-to-point link IFA_ADDRESS is the other end's.
  const nlattr* own =
      attributes[IFA_LOCAL] != nullptr ? attributes[IFA_LOCAL] : attributes[IFA_ADDRESS];
  if (own == nullptr) return;
  const nlattr* reached =
      attributes[IFA_ADDRESS] != nullptr ? attributes[IFA_ADDRESS] : attributes[IFA_LOCAL];
  to.addresses.push_back(
      {static_cast<int>(header->ifa_index), AddressOf(header->ifa_family, own),
       IpPrefix{AddressOf(header->ifa_family, reached), header->ifa_prefixlen}.Network()});
}

// Calls `take(index, gateway)` for each link that a route leads to; there may be no gateway.
template <typename Take>
void ForEachLink(const std::array<nlattr*, RTA_MAX + 1>& attributes, Take&& take) {
  if (attributes[RTA_OIF] != nullptr) {
    take(static_cast<int>(nla_get_u32(attributes[RTA_OIF])), attributes[RTA_GATEWAY]);
  }
  if (attributes[RTA_MULTIPATH] == nullptr) return;
  auto* hop = static_cast<rtnexthop*>(nla_data(attributes[RTA_MULTIPATH]));
  for (int left = nla_len(attributes[RTA_MULTIPATH]);
       left >= static_cast<int>(sizeof(rtnexthop));) {
    if (hop->rtnh_len < sizeof(rtnexthop) || hop->rtnh_len > left) return;
    take(hop->rtnh_ifindex,
         nla_find(reinterpret_cast<nlattr*>(RTNH_DATA(hop)),
                  hop->rtnh_len - static_cast<int>(sizeof(rtnexthop)), RTA_GATEWAY));
    left -= static_cast<int>(RTNH_ALIGN(hop->rtnh_len));
    hop = RTNH_NEXT(hop);
  }
}

void TakeRoute(nlmsghdr* message, NetSnapshot& to) {
  const auto* header = static_cast<const rtmsg*>(nlmsg_data(message));
  if (header->rtm_dst_len != 0 || header->rtm_src_len != 0 || header->rtm_type != RTN_UNICAST ||
      (header->rtm_flags & RTM_F_CLONED) != 0) {
    return;
  }
  if (header->rtm_family != AF_INET && header->rtm_family != AF_INET6) return;
  std::array<nlattr*, RTA_MAX + 1> attributes{};
  if (!Parse<RTA_MAX, rtmsg>(message, attributes)) return;
  NetDefaultRoute route;
  route.family = header->rtm_family == AF_INET ? IpAddress::Family::kV4 : IpAddress::Family::kV6;
  route.table =
      attributes[RTA_TABLE] != nullptr ? nla_get_u32(attributes[RTA_TABLE]) : header->rtm_table;
  if (attributes[RTA_PRIORITY] != nullptr) route.metric = nla_get_u32(attributes[RTA_PRIORITY]);
  ForEachLink(attributes, [&](int link, const nlattr*) {
    route.link = link;
    to.default_routes.push_back(route);
  });
}

int Take(nl_msg* message, void* to) {
  auto& snapshot = *static_cast<NetSnapshot*>(to);
  nlmsghdr* header = nlmsg_hdr(message);
  switch (header->nlmsg_type) {
    case RTM_NEWLINK:
      TakeLink(header, snapshot);
      break;
    case RTM_NEWADDR:
      TakeAddress(header, snapshot);
      break;
    case RTM_NEWROUTE:
      TakeRoute(header, snapshot);
      break;
    default:
      break;
  }
  return NL_OK;
}

struct FoundRoute {
  int link = 0;
  IpAddress gateway;  // unset: none
  int mtu = 0;        // 0: that of the link
};

int TakeLookup(nl_msg* message, void* to) {
  auto& found = *static_cast<std::optional<FoundRoute>*>(to);
  std::array<nlattr*, RTA_MAX + 1> attributes{};
  nlmsghdr* header = nlmsg_hdr(message);
  if (header->nlmsg_type != RTM_NEWROUTE || !Parse<RTA_MAX, rtmsg>(header, attributes))
    return NL_OK;
  const auto* route = static_cast<const rtmsg*>(nlmsg_data(header));
  if (route->rtm_type != RTN_UNICAST && route->rtm_type != RTN_LOCAL) return NL_OK;
  ForEachLink(attributes, [&](int link, const nlattr* gateway) {
    if (found) return;
    found = FoundRoute{link};
    if (gateway != nullptr) found->gateway = AddressOf(route->rtm_family, gateway);
  });
  if (!found || attributes[RTA_METRICS] == nullptr) return NL_OK;
  const nlattr* mtu = nla_find(static_cast<nlattr*>(nla_data(attributes[RTA_METRICS])),
                               nla_len(attributes[RTA_METRICS]), RTAX_MTU);
  if (mtu != nullptr) found->mtu = static_cast<int>(nla_get_u32(mtu));
  return NL_OK;
}

std::optional<FoundRoute> FindRoute(const Endpoint& remote, const IpAddress& local, int bound_to) {
  auto socket = OpenRtnetlink();
  if (!socket.ok()) return std::nullopt;
  const int bytes = remote.address.bytes_used();
  const NetlinkMessage message(nlmsg_alloc_simple(RTM_GETROUTE, NLM_F_REQUEST));
  rtmsg header{};
  header.rtm_family = static_cast<uint8_t>(remote.address.socket_family());
  header.rtm_dst_len = static_cast<uint8_t>(bytes * 8);
  header.rtm_src_len = local.is_set() ? header.rtm_dst_len : uint8_t{0};
  // The route that matches. Without this the kernel guesses one for a link that it is told.
  header.rtm_flags = RTM_F_FIB_MATCH;
  nlmsg_append(message.get(), &header, sizeof(header), NLMSG_ALIGNTO);
  nla_put(message.get(), RTA_DST, bytes, remote.address.bytes.data());
  if (local.is_set()) nla_put(message.get(), RTA_SRC, bytes, local.bytes.data());
  if (bound_to != 0) nla_put_u32(message.get(), RTA_OIF, static_cast<uint32_t>(bound_to));
  nla_put_u8(message.get(), RTA_IP_PROTO, IPPROTO_UDP);
  nla_put_u32(message.get(), RTA_MARK, kOwnMark);
  if (remote.port != 0) nla_put_u16(message.get(), RTA_DPORT, htons(remote.port));
  std::optional<FoundRoute> found;
  nl_socket_modify_cb(socket->get(), NL_CB_VALID, NL_CB_CUSTOM, TakeLookup, &found);
  nl_socket_disable_auto_ack(socket->get());
  if (nl_send_auto(socket->get(), message.get()) < 0) return std::nullopt;
  if (nl_recvmsgs_default(socket->get()) < 0) return std::nullopt;
  return found;
}

std::optional<int> MtuOf(int link) {
  const UniqueFd fd(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  ifreq request{};
  if (!fd || if_indextoname(static_cast<unsigned>(link), request.ifr_name) == nullptr) {
    return std::nullopt;
  }
  if (ioctl(fd.get(), SIOCGIFMTU, &request) != 0) return std::nullopt;
  return request.ifr_mtu;
}

}  // namespace

const NetLink* NetSnapshot::Find(int index) const {
  for (const NetLink& link : links) {
    if (link.index == index) return &link;
  }
  return nullptr;
}

const NetLink* NetSnapshot::Find(const std::string& name) const {
  for (const NetLink& link : links) {
    if (link.name == name) return &link;
  }
  return nullptr;
}

absl::StatusOr<NetSnapshot> ReadNetSnapshot() {
  auto network =
      DumpRtnetlink(RTM_GETLINK, ifinfomsg{}, std::nullopt, Take, NetSnapshot(), "links");
  if (!network.ok()) return network;
  network =
      DumpRtnetlink(RTM_GETADDR, ifaddrmsg{}, std::nullopt, Take, *network, "links' addresses");
  if (!network.ok()) return network;
  return DumpRtnetlink(RTM_GETROUTE, rtmsg{}, std::nullopt, Take, *network, "routes");
}

std::optional<int> LookUpRoute(const Endpoint& remote, const IpAddress& local, int bound_to) {
  const auto found = FindRoute(remote, local, bound_to);
  return found ? std::optional(found->link) : std::nullopt;
}

std::optional<NextHop> NextHopTowards(const Endpoint& remote, const IpAddress& local,
                                      int bound_to) {
  const auto found = FindRoute(remote, local, bound_to);
  if (!found) return std::nullopt;
  return NextHop{found->link, found->gateway.is_set() ? found->gateway : remote.address};
}

std::optional<int> LinkMtuTowards(const Endpoint& remote, const IpAddress& local, int bound_to) {
  const auto found = FindRoute(remote, local, bound_to);
  if (!found) return std::nullopt;
  const auto mtu = MtuOf(found->link);
  return mtu && found->mtu != 0 ? std::min(*mtu, found->mtu) : mtu;
}

}  // namespace braid
