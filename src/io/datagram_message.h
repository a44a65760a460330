// The msghdr of a UDP read or send and its control messages: local address (PKTINFO), coalesced
// size (UDP_GRO), time of arrival (SCM_TIMESTAMPNS), segment size (UDP_SEGMENT). Shared by the
// backends of Linux.
#pragma once

#include <netinet/in.h>
#include <netinet/udp.h>
#include <sys/socket.h>
#include <time.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/clock.h"
#include "io/backend.h"

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif
#ifndef UDP_GRO
#define UDP_GRO 104
#endif

namespace braid {

inline constexpr size_t kReceiveControlBytes =
    CMSG_SPACE(sizeof(in6_pktinfo)) + CMSG_SPACE(sizeof(int)) + CMSG_SPACE(sizeof(timespec));
inline constexpr size_t kSendControlBytes =
    CMSG_SPACE(sizeof(in6_pktinfo)) + CMSG_SPACE(sizeof(uint16_t));

// Fills what the control messages tell: local, interface_index, datagram_bytes, wall_ns.
inline void ReadControl(msghdr& message, size_t payload_bytes, Arrival& arrival) {
  arrival.datagram_bytes = static_cast<uint16_t>(payload_bytes);
  for (cmsghdr* control = CMSG_FIRSTHDR(&message); control != nullptr;
       control = CMSG_NXTHDR(&message, control)) {
    const uint8_t* data = CMSG_DATA(control);
    if (control->cmsg_level == SOL_UDP && control->cmsg_type == UDP_GRO) {
      arrival.datagram_bytes = static_cast<uint16_t>(LoadNative<int>(data));
    } else if (control->cmsg_level == IPPROTO_IP && control->cmsg_type == IP_PKTINFO) {
      const auto info = LoadNative<in_pktinfo>(data);
      arrival.local = IpAddress::V4(reinterpret_cast<const uint8_t*>(&info.ipi_addr));
      arrival.interface_index = static_cast<uint32_t>(info.ipi_ifindex);
    } else if (control->cmsg_level == IPPROTO_IPV6 && control->cmsg_type == IPV6_PKTINFO) {
      const auto info = LoadNative<in6_pktinfo>(data);
      arrival.local = IpAddress::V6(info.ipi6_addr.s6_addr);
      arrival.interface_index = info.ipi6_ifindex;
    } else if (control->cmsg_level == SOL_SOCKET && control->cmsg_type == SCM_TIMESTAMPNS) {
      arrival.wall_ns = ToNs(LoadNative<timespec>(data));
    }
  }
}

// Everything that one recvmsg points at. Points into itself: made anew, not moved, for each read.
struct ReceiveMessage {
  sockaddr_storage source;
  iovec part;
  alignas(cmsghdr) uint8_t control[kReceiveControlBytes];
  msghdr header;

  explicit ReceiveMessage(MutableBytes to) { Prepare(to); }
  ReceiveMessage& operator=(const ReceiveMessage&) = delete;

  void Prepare(MutableBytes to) {
    part = {to.data(), to.size()};
    header = {};
    header.msg_name = &source;
    header.msg_namelen = sizeof(source);
    header.msg_iov = &part;
    header.msg_iovlen = 1;
    header.msg_control = control;
    header.msg_controllen = sizeof(control);
  }

  void Read(size_t payload_bytes, Arrival& arrival) {
    arrival.source = Endpoint::From(source);
    ReadControl(header, payload_bytes, arrival);
  }
};

// Everything that one sendmsg points at.
struct SendMessage {
  sockaddr_storage address;
  iovec part;
  alignas(cmsghdr) uint8_t control[kSendControlBytes];
  msghdr header;

  // `segmented`: the kernel cuts the payload into datagrams.
  void Fill(const SendRequest& request, Bytes payload, bool segmented) {
    part = {const_cast<uint8_t*>(payload.data()), payload.size()};
    header = {};
    header.msg_name = &address;
    header.msg_namelen = request.to.To(address);
    header.msg_iov = &part;
    header.msg_iovlen = 1;
    size_t used = 0;
    if (request.from.is_v4()) {
      in_pktinfo info{};
      std::memcpy(&info.ipi_spec_dst, request.from.bytes.data(), 4);
      Append(used, IPPROTO_IP, IP_PKTINFO, info);
    } else if (request.from.is_v6()) {
      in6_pktinfo info{};
      std::memcpy(info.ipi6_addr.s6_addr, request.from.bytes.data(), 16);
      Append(used, IPPROTO_IPV6, IPV6_PKTINFO, info);
    }
    if (segmented) Append(used, SOL_UDP, UDP_SEGMENT, request.datagram_bytes);
    if (used != 0) {
      header.msg_control = control;
      header.msg_controllen = used;
    }
  }

 private:
  template <typename T>
  void Append(size_t& used, int level, int type, const T& value) {
    cmsghdr one{};
    one.cmsg_level = level;
    one.cmsg_type = type;
    one.cmsg_len = CMSG_LEN(sizeof(T));
    std::memcpy(control + used, &one, sizeof(one));
    std::memcpy(control + used + CMSG_LEN(0), &value, sizeof(T));
    used += CMSG_SPACE(sizeof(T));
  }
};

inline bool IsSegmented(const SendRequest& request) {
  return request.payload.size() > request.datagram_bytes;
}

// Sends the datagrams of a request one by one, for where segmentation is refused.
inline void SendUnsegmented(SendRequest& request) {
  request.error = 0;
  for (size_t at = 0; at < request.payload.size(); at += request.datagram_bytes) {
    const size_t bytes = std::min<size_t>(request.datagram_bytes, request.payload.size() - at);
    SendMessage message;
    message.Fill(request, request.payload.subspan(at, bytes), false);
    if (sendmsg(request.fd, &message.header, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
      request.error = errno;
  }
}

// Notes the outcome of a send. Where the device behind the route cannot finish the checksums that
// segmentation needs, or the kernel does not segment there at all, the datagrams go one by one.
inline void FinishSend(SendRequest& request, int error) {
  request.error = error;
  if (!IsSegmented(request) || (error != EIO && error != EOPNOTSUPP)) return;
  request.segmentation_refused = true;
  SendUnsegmented(request);
}

}  // namespace braid
