// On its way into the TUN device, a packet of a TCP flow that is turned round (fastpath/egress.h) is
// so here, in the kernel, without ever being read and written by the worker: it gets the addresses
// and ports that the maps say and arrives from the device at once.
//
// What begins or ends a flow (SYN, FIN, RST) goes the long way, so that the worker knows what it
// has to; and so does whatever is not in the maps.
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>
#include <linux/tcp.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

// As they stand in a header, from the addresses on.
struct v4_ends {
  __u8 addresses[8];
  __u8 ports[4];
};
struct v6_ends {
  __u8 addresses[32];
  __u8 ports[4];
};

struct {
  __uint(type, BPF_MAP_TYPE_HASH);
  __uint(map_flags, BPF_F_NO_PREALLOC);
  __uint(max_entries, 1);  // set when it is loaded
  __type(key, struct v4_ends);
  __type(value, struct v4_ends);
} v4_flows SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_HASH);
  __uint(map_flags, BPF_F_NO_PREALLOC);
  __uint(max_entries, 1);
  __type(key, struct v6_ends);
  __type(value, struct v6_ends);
} v6_flows SEC(".maps");

static __always_inline int goes_the_long_way(const struct tcphdr *tcp) {
  return tcp->syn || tcp->fin || tcp->rst;
}

// Those of ports are no part of the pseudo-header, which is all that the checksum of a packet has
// whose rest is left to a device.
static __always_inline int arrive(struct __sk_buff *skb, __u32 checksum_at, __s64 addresses,
                                  __s64 ports) {
  if (bpf_l4_csum_replace(skb, checksum_at, 0, addresses, BPF_F_PSEUDO_HDR) != 0 ||
      bpf_l4_csum_replace(skb, checksum_at, 0, ports, 0) != 0) {
    return TC_ACT_SHOT;
  }
  skb->mark = 0;
  return bpf_redirect(skb->ifindex, BPF_F_INGRESS);
}

static __always_inline int turn_v4(struct __sk_buff *skb) {
  const struct iphdr *ip = (void *)(long)skb->data;
  const struct tcphdr *tcp = (const void *)(ip + 1);
  if ((const void *)(tcp + 1) > (const void *)(long)skb->data_end) return TC_ACT_UNSPEC;
  const int is_fragment = (ip->frag_off & bpf_htons(0x3fff)) != 0;
  if (ip->ihl != 5 || ip->protocol != IPPROTO_TCP || is_fragment) return TC_ACT_UNSPEC;
  if (goes_the_long_way(tcp)) return TC_ACT_UNSPEC;
  struct v4_ends from;
  __builtin_memcpy(&from, &ip->saddr, sizeof(from));
  struct v4_ends *to = bpf_map_lookup_elem(&v4_flows, &from);
  if (!to) return TC_ACT_UNSPEC;
  const __s64 addresses = bpf_csum_diff((__be32 *)from.addresses, sizeof(from.addresses),
                                        (__be32 *)to->addresses, sizeof(to->addresses), 0);
  const __s64 ports = bpf_csum_diff((__be32 *)from.ports, sizeof(from.ports), (__be32 *)to->ports,
                                    sizeof(to->ports), 0);
  if (bpf_l3_csum_replace(skb, __builtin_offsetof(struct iphdr, check), 0, addresses, 0) != 0 ||
      bpf_skb_store_bytes(skb, __builtin_offsetof(struct iphdr, saddr), to, sizeof(*to), 0) != 0) {
    return TC_ACT_SHOT;
  }
  return arrive(skb, sizeof(struct iphdr) + __builtin_offsetof(struct tcphdr, check), addresses,
                ports);
}

static __always_inline int turn_v6(struct __sk_buff *skb) {
  const struct ipv6hdr *ip = (void *)(long)skb->data;
  const struct tcphdr *tcp = (const void *)(ip + 1);
  if ((const void *)(tcp + 1) > (const void *)(long)skb->data_end) return TC_ACT_UNSPEC;
  if (ip->nexthdr != IPPROTO_TCP || goes_the_long_way(tcp)) return TC_ACT_UNSPEC;
  struct v6_ends from;
  __builtin_memcpy(&from, &ip->saddr, sizeof(from));
  struct v6_ends *to = bpf_map_lookup_elem(&v6_flows, &from);
  if (!to) return TC_ACT_UNSPEC;
  const __s64 addresses = bpf_csum_diff((__be32 *)from.addresses, sizeof(from.addresses),
                                        (__be32 *)to->addresses, sizeof(to->addresses), 0);
  const __s64 ports = bpf_csum_diff((__be32 *)from.ports, sizeof(from.ports), (__be32 *)to->ports,
                                    sizeof(to->ports), 0);
  if (bpf_skb_store_bytes(skb, __builtin_offsetof(struct ipv6hdr, saddr), to, sizeof(*to), 0) !=
      0) {
    return TC_ACT_SHOT;
  }
  return arrive(skb, sizeof(struct ipv6hdr) + __builtin_offsetof(struct tcphdr, check), addresses,
                ports);
}

SEC("tc")
int turn_round(struct __sk_buff *skb) {
  if (skb->protocol == bpf_htons(ETH_P_IP)) return turn_v4(skb);
  if (skb->protocol == bpf_htons(ETH_P_IPV6)) return turn_v6(skb);
  return TC_ACT_UNSPEC;
}
