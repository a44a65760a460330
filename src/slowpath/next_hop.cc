#include "slowpath/next_hop.h"

#include <linux/neighbour.h>
#include <linux/rtnetlink.h>
#include <netlink/msg.h>
#include <sys/socket.h>

#include <memory>

#include "slowpath/netlink.h"

namespace braid {
namespace {

int AskNeighbours(nl_sock* socket, int type, const NextHop& next_hop) {
  const NetlinkMessage message(nlmsg_alloc_simple(type, NLM_F_REQUEST));
  ndmsg header{};
  header.ndm_family = static_cast<uint8_t>(next_hop.address.socket_family());
  header.ndm_ifindex = next_hop.link;
  nlmsg_append(message.get(), &header, sizeof(header), NLMSG_ALIGNTO);
  nla_put(message.get(), NDA_DST, next_hop.address.bytes_used(), next_hop.address.bytes.data());
  return nl_send_auto(socket, message.get());
}

int TakeState(nl_msg* message, void* to) {
  const nlmsghdr* header = nlmsg_hdr(message);
  if (header->nlmsg_type == RTM_NEWNEIGH) {
    *static_cast<int*>(to) = static_cast<const ndmsg*>(nlmsg_data(header))->ndm_state;
  }
  return NL_OK;
}

}  // namespace

void ForgetUnresolved(const NextHop& next_hop) {
  const auto socket = OpenRtnetlink();
  if (!socket.ok()) return;
  int state = NUD_NONE;
  nl_socket_modify_cb(socket->get(), NL_CB_VALID, NL_CB_CUSTOM, TakeState, &state);
  nl_socket_disable_auto_ack(socket->get());
  if (AskNeighbours(socket->get(), RTM_GETNEIGH, next_hop) < 0) return;
  if (nl_recvmsgs_default(socket->get()) < 0) return;
  if ((state & (NUD_INCOMPLETE | NUD_FAILED)) == 0) return;
  AskNeighbours(socket->get(), RTM_DELNEIGH, next_hop);
}

}  // namespace braid
