#include "slowpath/throwaway_network.h"

#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <netlink/route/addr.h>
#include <netlink/route/link.h>
#include <netlink/route/link/veth.h>
#include <sched.h>
#include <sys/socket.h>

#include <cstring>
#include <thread>

#include "base/c_pointer.h"
#include "slowpath/netlink.h"

namespace braid {
namespace {

using Link = CPointer<rtnl_link, rtnl_link_put>;

absl::Status SetUp(const std::string& name) {
  auto socket = OpenRtnetlink();
  if (!socket.ok()) return socket.status();
  const Link now(rtnl_link_alloc());
  rtnl_link_set_ifindex(now.get(), static_cast<int>(if_nametoindex(name.c_str())));
  const Link change(rtnl_link_alloc());
  rtnl_link_set_flags(change.get(), IFF_UP);
  const int result = rtnl_link_change(socket->get(), now.get(), change.get(), 0);
  if (result < 0) return NetlinkError(result, "cannot bring up \"" + name + "\"");
  return absl::OkStatus();
}

absl::Status AddAddress(const std::string& name, const IpPrefix& prefix) {
  auto socket = OpenRtnetlink();
  if (!socket.ok()) return socket.status();
  const NetlinkAddress local = ToNetlink(prefix);
  const CPointer<rtnl_addr, rtnl_addr_put> address(rtnl_addr_alloc());
  rtnl_addr_set_ifindex(address.get(), static_cast<int>(if_nametoindex(name.c_str())));
  rtnl_addr_set_local(address.get(), local.get());
  const int result = rtnl_addr_add(socket->get(), address.get(), 0);
  if (result < 0) {
    return NetlinkError(result, "cannot give " + prefix.ToString() + " to \"" + name + "\"");
  }
  return absl::OkStatus();
}

absl::Status AddVethPair(const VethEnd& a, const VethEnd& b, int mtu) {
  auto socket = OpenRtnetlink();
  if (!socket.ok()) return socket.status();
  const Link link(rtnl_link_veth_alloc());
  rtnl_link_set_name(link.get(), a.name.c_str());
  rtnl_link_set_mtu(link.get(), static_cast<unsigned>(mtu));
  const Link peer(rtnl_link_veth_get_peer(link.get()));
  rtnl_link_set_name(peer.get(), b.name.c_str());
  rtnl_link_set_mtu(peer.get(), static_cast<unsigned>(mtu));
  rtnl_link_set_ns_fd(peer.get(), b.in.fd());
  const int result = rtnl_link_add(socket->get(), link.get(), NLM_F_CREATE | NLM_F_EXCL);
  if (result < 0) return NetlinkError(result, "cannot make a pair of veth devices");
  return absl::OkStatus();
}

absl::Status NamespaceError(int error) {
  if (error == EPERM) {
    return absl::PermissionDeniedError(
        "a network namespace of its own needs CAP_SYS_ADMIN and CAP_NET_ADMIN (run as root)");
  }
  return absl::ErrnoToStatus(error, "cannot make a network namespace");
}

}  // namespace

absl::StatusOr<NetworkNamespace> NetworkNamespace::Create() {
  absl::StatusOr<NetworkNamespace> made = absl::UnknownError("");
  // The caller stays where it is.
  std::thread([&made] {
    if (unshare(CLONE_NEWNET) != 0) {
      made = NamespaceError(errno);
      return;
    }
    UniqueFd fd(open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC));
    if (!fd) {
      made = NamespaceError(errno);
      return;
    }
    if (absl::Status status = SetUp("lo"); !status.ok()) {
      made = status;
      return;
    }
    made = NetworkNamespace(std::move(fd));
  }).join();
  return made;
}

absl::Status NetworkNamespace::Enter() const {
  if (setns(fd_.get(), CLONE_NEWNET) == 0) return absl::OkStatus();
  return NamespaceError(errno);
}

absl::Status NetworkNamespace::Run(const std::function<absl::Status()>& body) const {
  absl::Status status;
  std::thread([&] {
    status = Enter();
    if (status.ok()) status = body();
  }).join();
  return status;
}

absl::Status JoinByVeth(const VethEnd& a, const VethEnd& b, int mtu) {
  if (absl::Status status = a.in.Run([&] { return AddVethPair(a, b, mtu); }); !status.ok()) {
    return status;
  }
  for (const VethEnd* end : {&a, &b}) {
    absl::Status status = end->in.Run([end] { return BringUpDevice(end->name, end->address); });
    if (!status.ok()) return status;
  }
  // The kernel takes up to a second to notice that a link is up, unless it is asked.
  for (const VethEnd* end : {&a, &b}) {
    absl::Status status = end->in.Run([end]() -> absl::Status {
      auto socket = OpenRtnetlink();
      if (!socket.ok()) return socket.status();
      rtnl_link* link = nullptr;
      rtnl_link_get_kernel(socket->get(), 0, end->name.c_str(), &link);
      rtnl_link_put(link);
      return absl::OkStatus();
    });
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status BringUpDevice(const std::string& name, const IpPrefix& address) {
  if (absl::Status status = AddAddress(name, address); !status.ok()) return status;
  return SetUp(name);
}

}  // namespace braid
