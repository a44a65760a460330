// The little that all users of rtnetlink (libnl-route) share.
#pragma once

#include <netlink/addr.h>
#include <netlink/msg.h>
#include <netlink/netlink.h>
#include <netlink/socket.h>

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

}  // namespace braid
