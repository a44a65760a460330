#include "slowpath/policy_routes.h"

#include <linux/fib_rules.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <netlink/errno.h>
#include <netlink/msg.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <map>
#include <optional>
#include <utility>

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

// What a dump of a table brings.
struct TableReading {
  uint32_t table = 0;
  bool in_use = false;  // by whomever
  std::vector<OwnRoute> own = {};
  std::map<uint32_t, std::string> device_names = {};  // asked for once each
};

const std::string& NameOfDevice(uint32_t index, std::map<uint32_t, std::string>& known) {
  const auto [entry, is_new] = known.try_emplace(index);
  char name[IF_NAMESIZE];
  if (is_new && if_indextoname(index, name) != nullptr) entry->second = name;
  return entry->second;
}

IpPrefix DestinationOf(const rtmsg& header, const nlattr* destination) {
  IpPrefix to;
  to.length = header.rtm_dst_len;
  to.address.family =
      header.rtm_family == AF_INET ? IpAddress::Family::kV4 : IpAddress::Family::kV6;
  if (destination == nullptr) return to;  // all of it
  const auto bytes = static_cast<size_t>(std::min(nla_len(destination), to.address.bytes_used()));
  std::memcpy(to.address.bytes.data(), nla_data(destination), bytes);
  return to;
}

int LookAtRoute(nl_msg* message, void* to) {
  auto& reading = *static_cast<TableReading*>(to);
  nlmsghdr* header = nlmsg_hdr(message);
  if (header->nlmsg_type != RTM_NEWROUTE) return NL_OK;
  const auto attributes = AttributesOf<RTA_MAX, rtmsg>(header);
  if (!attributes) return NL_OK;
  const auto& route = *static_cast<const rtmsg*>(nlmsg_data(header));
  if (NumberIn((*attributes)[RTA_TABLE], route.rtm_table) != reading.table) return NL_OK;
  reading.in_use = true;
  if (route.rtm_protocol != kOwnProtocol) return NL_OK;
  OwnRoute own{.to = DestinationOf(route, (*attributes)[RTA_DST]), .table = reading.table};
  if (route.rtm_type == RTN_THROW) {
    own.type = OwnRoute::Type::kThrow;
  } else if (route.rtm_type == RTN_UNICAST) {
    own.device = NameOfDevice(NumberIn((*attributes)[RTA_OIF], 0), reading.device_names);
  } else {
    return NL_OK;
  }
  reading.own.push_back(std::move(own));
  return NL_OK;
}

int LookAtRule(nl_msg* message, void* to) {
  nlmsghdr* header = nlmsg_hdr(message);
  if (header->nlmsg_type != RTM_NEWRULE) return NL_OK;
  const auto attributes = AttributesOf<FRA_MAX, fib_rule_hdr>(header);
  if (!attributes) return NL_OK;
  const auto& rule = *static_cast<const fib_rule_hdr*>(nlmsg_data(header));
  nlattr* protocol = (*attributes)[FRA_PROTOCOL];
  const bool is_own = protocol != nullptr && nla_get_u8(protocol) == kOwnProtocol &&
                      (rule.flags & FIB_RULE_INVERT) != 0;
  if (!is_own) return NL_OK;
  static_cast<std::vector<OwnRule>*>(to)->push_back(
      {.family = rule.family == AF_INET ? IpAddress::Family::kV4 : IpAddress::Family::kV6,
       .priority = NumberIn((*attributes)[FRA_PRIORITY], 0),
       .unless_mark = NumberIn((*attributes)[FRA_FWMARK], 0),
       .table = NumberIn((*attributes)[FRA_TABLE], rule.table)});
  return NL_OK;
}

absl::StatusOr<TableReading> ReadTable(IpAddress::Family family, uint32_t table) {
  rtmsg header{};
  header.rtm_family = static_cast<uint8_t>(FamilyOf(family));
  return DumpRtnetlink(RTM_GETROUTE, header, table, LookAtRoute, TableReading{.table = table},
                       "routes");
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

absl::StatusOr<std::vector<OwnRoute>> OwnRoutesIn(IpAddress::Family family, uint32_t table) {
  auto reading = ReadTable(family, table);
  if (!reading.ok()) return reading.status();
  return std::move(reading->own);
}

absl::StatusOr<std::vector<OwnRule>> OwnRules(IpAddress::Family family) {
  fib_rule_hdr header{};
  header.family = static_cast<uint8_t>(FamilyOf(family));
  return DumpRtnetlink(RTM_GETRULE, header, std::nullopt, LookAtRule, std::vector<OwnRule>(),
                       "routing rules");
}

absl::StatusOr<bool> IsTableInUse(IpAddress::Family family, uint32_t table) {
  const auto reading = ReadTable(family, table);
  if (!reading.ok()) return reading.status();
  return reading->in_use;
}

}  // namespace braid
