#include "slowpath/policy_routes.h"

#include <linux/fib_rules.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <netlink/errno.h>
#include <netlink/msg.h>
#include <sys/socket.h>

#include <array>
#include <cstring>
#include <optional>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "slowpath/netlink.h"

namespace braid {
namespace {

int FamilyOf(IpAddress::Family family) {
  return family == IpAddress::Family::kV4 ? AF_INET : AF_INET6;
}

enum class What : uint8_t { kAdd, kRemove };

// Sends it and waits for the kernel's answer. What is to be removed and is not there is well.
absl::Status Ask(nl_msg* message, What what, const std::string& described) {
  const auto socket = OpenRtnetlink();
  if (!socket.ok()) return socket.status();
  int result = nl_send_auto(socket->get(), message);
  if (result >= 0) result = nl_wait_for_ack(socket->get());
  if (result >= 0) return absl::OkStatus();
  if (what == What::kAdd && result == -NLE_EXIST) {
    return absl::AlreadyExistsError(absl::StrCat("there is a ", described, " already"));
  }
  const bool is_gone = result == -NLE_OBJ_NOTFOUND || result == -NLE_NODEV ||
                       result == -NLE_AF_NOSUPPORT || result == -NLE_OPNOTSUPP;
  if (what == What::kRemove && is_gone) return absl::OkStatus();
  return NetlinkError(
      result, absl::StrCat(what == What::kAdd ? "cannot add " : "cannot remove ", described));
}

int AddFlags() { return NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL; }

absl::Status AskForRoute(const OwnRoute& route, What what) {
  const NetlinkMessage message(
      nlmsg_alloc_simple(what == What::kAdd ? RTM_NEWROUTE : RTM_DELROUTE,
                         what == What::kAdd ? AddFlags() : NLM_F_REQUEST | NLM_F_ACK));
  const bool through_device = route.type == OwnRoute::Type::kThroughDevice;
  const IpPrefix to = route.to.Network();
  rtmsg header{};
  header.rtm_family = static_cast<uint8_t>(to.address.socket_family());
  header.rtm_dst_len = static_cast<uint8_t>(to.length);
  header.rtm_protocol = kOwnProtocol;
  // So narrow that the kernel finds it also when it looks for the device that a gateway is on.
  header.rtm_scope = to.address.is_v4() ? RT_SCOPE_LINK : RT_SCOPE_UNIVERSE;
  header.rtm_type = through_device ? RTN_UNICAST : RTN_THROW;
  nlmsg_append(message.get(), &header, sizeof(header), NLMSG_ALIGNTO);
  nla_put_u32(message.get(), RTA_TABLE, route.table);
  if (to.length != 0) {
    nla_put(message.get(), RTA_DST, to.address.bytes_used(), to.address.bytes.data());
  }
  if (through_device) {
    const unsigned index = if_nametoindex(route.device.c_str());
    if (index == 0) {
      // Its routes have gone with it.
      if (what == What::kRemove) return absl::OkStatus();
      return absl::NotFoundError(absl::StrCat("cannot add ", route.Describe(),
                                              ": the device has "
                                              "vanished"));
    }
    nla_put_u32(message.get(), RTA_OIF, index);
  }
  return Ask(message.get(), what, route.Describe());
}

absl::Status AskForRule(const OwnRule& rule, What what) {
  const NetlinkMessage message(
      nlmsg_alloc_simple(what == What::kAdd ? RTM_NEWRULE : RTM_DELRULE,
                         what == What::kAdd ? AddFlags() : NLM_F_REQUEST | NLM_F_ACK));
  fib_rule_hdr header{};
  header.family = static_cast<uint8_t>(FamilyOf(rule.family));
  header.action = FR_ACT_TO_TBL;
  header.flags = FIB_RULE_INVERT;
  nlmsg_append(message.get(), &header, sizeof(header), NLMSG_ALIGNTO);
  nla_put_u32(message.get(), FRA_PRIORITY, rule.priority);
  nla_put_u32(message.get(), FRA_FWMARK, rule.unless_mark);
  nla_put_u32(message.get(), FRA_FWMASK, UINT32_MAX);
  nla_put_u32(message.get(), FRA_TABLE, rule.table);
  nla_put_u8(message.get(), FRA_PROTOCOL, kOwnProtocol);
  return Ask(message.get(), what, rule.Describe());
}

template <int kMax, typename Header>
std::optional<std::array<nlattr*, kMax + 1>> AttributesOf(nlmsghdr* message) {
  std::array<nlattr*, kMax + 1> attributes{};
  if (nlmsg_parse(message, sizeof(Header), attributes.data(), kMax, nullptr) < 0) {
    return std::nullopt;
  }
  return attributes;
}

uint32_t NumberIn(nlattr* attribute, uint32_t otherwise) {
  return attribute != nullptr ? nla_get_u32(attribute) : otherwise;
}

// Any route of a table; or, where there is one, those like it.
struct RouteSearch {
  uint32_t table = 0;
  const OwnRoute* like = nullptr;
  bool found = false;
};

bool IsLike(const OwnRoute& route, const rtmsg& header,
            const std::array<nlattr*, RTA_MAX + 1>& attributes) {
  const IpPrefix to = route.to.Network();
  const auto bytes = static_cast<size_t>(to.address.bytes_used());
  const nlattr* destination = attributes[RTA_DST];
  const bool same_destination =
      destination == nullptr
          ? to.length == 0
          : nla_len(destination) == static_cast<int>(bytes) &&
                std::memcmp(nla_data(destination), to.address.bytes.data(), bytes) == 0;
  if (header.rtm_protocol != kOwnProtocol || header.rtm_dst_len != to.length || !same_destination) {
    return false;
  }
  if (route.type == OwnRoute::Type::kThrow) return header.rtm_type == RTN_THROW;
  return header.rtm_type == RTN_UNICAST &&
         NumberIn(attributes[RTA_OIF], 0) == if_nametoindex(route.device.c_str());
}

int LookAtRoute(nl_msg* message, void* to) {
  auto& search = *static_cast<RouteSearch*>(to);
  nlmsghdr* header = nlmsg_hdr(message);
  if (header->nlmsg_type != RTM_NEWROUTE) return NL_OK;
  const auto attributes = AttributesOf<RTA_MAX, rtmsg>(header);
  if (!attributes) return NL_OK;
  const auto& route = *static_cast<const rtmsg*>(nlmsg_data(header));
  if (NumberIn((*attributes)[RTA_TABLE], route.rtm_table) != search.table) return NL_OK;
  search.found |= search.like == nullptr || IsLike(*search.like, route, *attributes);
  return NL_OK;
}

struct RuleSearch {
  const OwnRule& like;
  bool found = false;
};

int LookAtRule(nl_msg* message, void* to) {
  auto& search = *static_cast<RuleSearch*>(to);
  nlmsghdr* header = nlmsg_hdr(message);
  if (header->nlmsg_type != RTM_NEWRULE) return NL_OK;
  const auto attributes = AttributesOf<FRA_MAX, fib_rule_hdr>(header);
  if (!attributes) return NL_OK;
  const auto& rule = *static_cast<const fib_rule_hdr*>(nlmsg_data(header));
  nlattr* protocol = (*attributes)[FRA_PROTOCOL];
  search.found |= rule.family == FamilyOf(search.like.family) &&
                  (rule.flags & FIB_RULE_INVERT) != 0 && protocol != nullptr &&
                  nla_get_u8(protocol) == kOwnProtocol &&
                  NumberIn((*attributes)[FRA_PRIORITY], 0) == search.like.priority &&
                  NumberIn((*attributes)[FRA_FWMARK], 0) == search.like.unless_mark &&
                  NumberIn((*attributes)[FRA_TABLE], rule.table) == search.like.table;
  return NL_OK;
}

// The kernel gives only what is in the table, where it can.
absl::Status Dump(nl_msg* request, nl_recvmsg_msg_cb_t take, void* to, const char* what) {
  const auto socket = OpenRtnetlink();
  if (!socket.ok()) return socket.status();
  const int on = 1;
  setsockopt(nl_socket_get_fd(socket->get()), SOL_NETLINK, NETLINK_GET_STRICT_CHK, &on, sizeof(on));
  nl_socket_modify_cb(socket->get(), NL_CB_VALID, NL_CB_CUSTOM, take, to);
  int result = nl_send_auto(socket->get(), request);
  if (result >= 0) result = nl_recvmsgs_default(socket->get());
  // A table that never was; what changed while it was read is looked at again another time.
  const bool is_answer = result >= 0 || result == -NLE_DUMP_INTR || result == -NLE_OBJ_NOTFOUND;
  if (is_answer) return absl::OkStatus();
  return NetlinkError(result, absl::StrCat("cannot read this machine's ", what));
}

absl::Status SearchRoutes(IpAddress::Family family, RouteSearch& search) {
  const NetlinkMessage message(nlmsg_alloc_simple(RTM_GETROUTE, NLM_F_REQUEST | NLM_F_DUMP));
  rtmsg header{};
  header.rtm_family = static_cast<uint8_t>(FamilyOf(family));
  nlmsg_append(message.get(), &header, sizeof(header), NLMSG_ALIGNTO);
  nla_put_u32(message.get(), RTA_TABLE, search.table);
  return Dump(message.get(), LookAtRoute, &search, "routes");
}

const char* NameOf(IpAddress::Family family) {
  return family == IpAddress::Family::kV4 ? "IPv4" : "IPv6";
}

}  // namespace

std::string OwnRoute::Describe() const {
  return absl::StrCat("route ", to.Network().ToString(),
                      type == Type::kThrow ? std::string(" past the tunnel") : " through " + device,
                      " in table ", table);
}

std::string OwnRule::Describe() const {
  return absl::StrCat(NameOf(family), " rule of priority ", priority, " for table ", table);
}

absl::Status AddRoute(const OwnRoute& route) { return AskForRoute(route, What::kAdd); }
absl::Status AddRule(const OwnRule& rule) { return AskForRule(rule, What::kAdd); }
absl::Status RemoveRoute(const OwnRoute& route) { return AskForRoute(route, What::kRemove); }
absl::Status RemoveRule(const OwnRule& rule) { return AskForRule(rule, What::kRemove); }

absl::StatusOr<bool> HasRoute(const OwnRoute& route) {
  RouteSearch search{.table = route.table, .like = &route};
  if (absl::Status status = SearchRoutes(route.to.address.family, search); !status.ok()) {
    return status;
  }
  return search.found;
}

absl::StatusOr<bool> HasRule(const OwnRule& rule) {
  const NetlinkMessage message(nlmsg_alloc_simple(RTM_GETRULE, NLM_F_REQUEST | NLM_F_DUMP));
  fib_rule_hdr header{};
  header.family = static_cast<uint8_t>(FamilyOf(rule.family));
  nlmsg_append(message.get(), &header, sizeof(header), NLMSG_ALIGNTO);
  RuleSearch search{rule};
  absl::Status status = Dump(message.get(), LookAtRule, &search, "routing rules");
  if (!status.ok()) return status;
  return search.found;
}

absl::StatusOr<bool> IsTableInUse(IpAddress::Family family, uint32_t table) {
  RouteSearch search{.table = table};
  if (absl::Status status = SearchRoutes(family, search); !status.ok()) return status;
  return search.found;
}

}  // namespace braid
