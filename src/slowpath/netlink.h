// The little that all users of rtnetlink (libnl-route) share.
#pragma once

#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <netlink/addr.h>
#include <netlink/errno.h>
#include <netlink/msg.h>
#include <netlink/netlink.h>
#include <netlink/socket.h>
#include <sys/socket.h>

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/address.h"
#include "base/c_pointer.h"

namespace braid {

// What changes while it is read is read again, so often.
inline constexpr int kDumpTries = 5;

using NetlinkMessage = CPointer<nl_msg, nlmsg_free>;
using NetlinkSocket = CPointer<nl_sock, nl_socket_free>;
using NetlinkAddress = CPointer<nl_addr, nl_addr_put>;

inline NetlinkAddress ToNetlink(const IpPrefix& prefix) {
  const IpAddress& address = prefix.address;
  NetlinkAddress made(nl_addr_build(address.socket_family(), address.bytes.data(),
                                    static_cast<size_t>(address.bytes_used())));
  nl_addr_set_prefixlen(made.get(), prefix.length);
  return made;
}

inline absl::Status NetlinkError(int error, const std::string& what) {
  return absl::UnavailableError(what + ": " + nl_geterror(error));
}

inline absl::StatusOr<NetlinkSocket> OpenRtnetlink() {
  NetlinkSocket socket(nl_socket_alloc());
  if (socket == nullptr) return absl::ResourceExhaustedError("rtnetlink: no memory");
  if (const int result = nl_connect(socket.get(), NETLINK_ROUTE); result < 0) {
    return NetlinkError(result, "cannot open rtnetlink");
  }
  return socket;
}

// What `take` makes of the kernel's answers to one question, `begun` as it is given. What changes
// while it is read is read again. Only what is asked for comes, where the kernel can tell that.
template <typename Header, typename Reading>
absl::StatusOr<Reading> DumpRtnetlink(int type, const Header& header, std::optional<uint32_t> table,
                                      nl_recvmsg_msg_cb_t take, const Reading& begun,
                                      const char* what) {
  int result = 0;
  for (int i = 0; i < kDumpTries; ++i) {
    // What is left of an interrupted dump goes with its socket.
    const auto socket = OpenRtnetlink();
    if (!socket.ok()) return socket.status();
    const int on = 1;
    setsockopt(nl_socket_get_fd(socket->get()), SOL_NETLINK, NETLINK_GET_STRICT_CHK, &on,
               sizeof(on));
    const NetlinkMessage request(nlmsg_alloc_simple(type, NLM_F_REQUEST | NLM_F_DUMP));
    Header copy = header;
    nlmsg_append(request.get(), &copy, sizeof(copy), NLMSG_ALIGNTO);
    if (table) nla_put_u32(request.get(), RTA_TABLE, *table);
    Reading reading = begun;
    nl_socket_modify_cb(socket->get(), NL_CB_VALID, NL_CB_CUSTOM, take, &reading);
    result = nl_send_auto(socket->get(), request.get());
    if (result >= 0) result = nl_recvmsgs_default(socket->get());
    // A table that never was has no routes.
    if (result >= 0 || result == -NLE_OBJ_NOTFOUND) return reading;
    if (result != -NLE_DUMP_INTR) break;
  }
  return NetlinkError(result, std::string("cannot read this machine's ") + what);
}

}  // namespace braid
