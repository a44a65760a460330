// The named maximum of every queue, table and buffer, and the relations among them.
#pragma once

#include <cstddef>
#include <cstdint>

namespace braid {

// Wire. The layout itself is in fastpath/wire.h.
inline constexpr size_t kHeaderBytes = 24;
inline constexpr size_t kTagBytes = 16;
inline constexpr size_t kSealOverheadBytes = kHeaderBytes + kTagBytes;
inline constexpr size_t kMaxUdpPayloadBytes = 65507;  // IPv4
inline constexpr size_t kMaxGsoDatagrams = 128;       // UDP_MAX_SEGMENTS since Linux 6.9, was 64

// Inner packets. The vnet header stands in front of what TUN reads and writes.
inline constexpr size_t kMaxInnerBytes = 65535;
inline constexpr size_t kMinMtu = 1280;
inline constexpr size_t kMaxMtu = kMaxUdpPayloadBytes - kSealOverheadBytes;

// Super-packets. From 65,536 bytes on, the link header counted, a device has the kernel cut them in
// software: Ethernet with two VLAN tags, and around a train IPv6 and UDP, still fit.
inline constexpr size_t kMaxJoinedBytes = 65535 - 22;               // packets that were joined
inline constexpr size_t kMaxTrainBytes = kMaxJoinedBytes - 40 - 8;  // datagrams of one send

// A packet buffer holds a whole super-packet from TUN or a whole coalesced read from UDP, the
// headroom in front of it (vnet header, or what the kernel puts before a datagram: address and
// control data), and a tail that a vector unit may write past.
inline constexpr size_t kPacketHeadroomBytes = 256;
inline constexpr size_t kPacketDataBytes = 65536 + 64;  // the vnet header is within
inline constexpr size_t kPacketTailroomBytes = 64;
inline constexpr size_t kPacketBufferBytes =
    kPacketHeadroomBytes + kPacketDataBytes + kPacketTailroomBytes;

// Lanes, paths, workers, peers.
inline constexpr int kMaxLanes = 128;  // of the packet path: 0 … 127
inline constexpr int kDefaultLanes = 16;
// Lanes of a bond, beside those of the packet path. What comes on the first is delivered at once,
// what comes on the others in order.
inline constexpr uint8_t kFirstBondLane = 128;
inline constexpr uint8_t kExpressLane = kFirstBondLane;
inline constexpr int kOrderedBondLanes = 16;
inline constexpr int kBondLanes = 1 + kOrderedBondLanes;
inline constexpr bool IsBondLane(uint8_t lane) {
  return lane >= kFirstBondLane && lane < kFirstBondLane + kBondLanes;
}
inline constexpr uint8_t kSlowLane = 255;  // handshakes and sealed control of the slow path
inline constexpr int kMaxPaths = 8;        // of the 64 that the header could name
inline constexpr int kMaxWorkers = 64;
inline constexpr int kMaxPeers = 65536;
inline constexpr int kMaxListenAddresses = 16;
// Ways to send: a client has two for each path, one of each address family, a server its listening
// addresses.
inline constexpr int kMaxSocketGroups = kMaxPaths * 2;
inline constexpr int kMaxEndpointsPerPeer = 16;
inline constexpr int kMaxPrefixesPerPeer = 1024;
inline constexpr size_t kMaxClassRules = 64;  // of ports
inline constexpr size_t kMaxPortRangesPerRule = 64;
inline constexpr size_t kMaxEgressRules = 1024;

// Packets that the bonds of one worker hold: waiting, sent lately, or waited for.
inline constexpr size_t kBondSlots = 32768;

// Per worker.
inline constexpr int kReceiveBuffers = 64;  // provided to the kernel for UDP reads; power of two
inline constexpr int kTunReadBatch = 64;    // packets taken from TUN between two flushes
inline constexpr int kTrainBuffers = 64;    // sends being filled between two flushes
inline constexpr int kSpareBuffers = 64;    // held by another worker, or by a queue
// While one set of reads is being worked on, the kernel has another.
inline constexpr int kReceivePoolBuffers = kReceiveBuffers * 2 + kTunReadBatch + kSpareBuffers;
inline constexpr int kInboxSlots = 1024;  // packets and commands handed to a worker
inline constexpr int kEventSlots = 4096;  // what workers and relays tell the slow path
inline constexpr size_t kMostDnsEvents = kEventSlots / 4;  // beyond which nothing of DNS is told
inline constexpr int kVerdictSlots = 4096;  // of TCP flows past the tunnel
// Of UDP packets past the tunnel, for each relay; and of it at least so much for each worker.
inline constexpr size_t kEgressDatagramBytes = 4 << 20;
inline constexpr size_t kLeastEgressDatagramBytes = 256 << 10;
// Initiations being worked on: what the threads for it do in a tenth of a second or two.
inline constexpr int kMaxHandshakeJobs = 1024;
// Of a UDP socket, each way. A burst of a whole TUN queue fits; more only adds delay.
inline constexpr int kSocketBufferBytes = 4 << 20;

// What a worker reads and writes has numbers below; relays and clients have descriptors, too.
inline constexpr int kMaxDescriptors = 1 << 16;

static_assert((kReceiveBuffers & (kReceiveBuffers - 1)) == 0);
static_assert((kInboxSlots & (kInboxSlots - 1)) == 0);
static_assert((kEventSlots & (kEventSlots - 1)) == 0);
static_assert((kVerdictSlots & (kVerdictSlots - 1)) == 0);
static_assert(kPacketDataBytes > kMaxInnerBytes);
static_assert(kMaxLanes <= kSlowLane);
static_assert(kMaxListenAddresses <= kMaxSocketGroups);
static_assert(kMaxSocketGroups * kMaxLanes <= UINT16_MAX);  // ids of sockets
static_assert(kPacketHeadroomBytes % 64 == 0 && kPacketBufferBytes % 64 == 0);

}  // namespace braid
