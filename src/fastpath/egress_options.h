// Where flows that leave past the tunnel are turned round, and what is said of them between a
// worker and the slow path.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "base/address.h"
#include "fastpath/icmp_error.h"

namespace braid {

class FlowShortcuts;
struct EgressDatagrams;

// Of one address family. The listener and the neighbours are in one network of the device's own.
struct EgressNeighbours {
  IpAddress listener;          // unset: no flows of this family
  IpAddress first;             // neighbour of worker 0; that of worker k is k further
  uint16_t listener_port = 0;  // of this worker's relay

  bool is_set() const { return listener.is_set(); }
  IpAddress Of(int worker) const {
    IpAddress address = first;
    address.bytes[LastByte()] = static_cast<uint8_t>(address.bytes[LastByte()] + worker);
    return address;
  }
  // The worker whose neighbour that is, among so many; -1: nobody's.
  int WorkerOf(const IpAddress& address, int workers) const {
    if (address.family != first.family) return -1;
    const int worker = address.bytes[LastByte()] - first.bytes[LastByte()];
    return worker >= 0 && worker < workers && Of(worker) == address ? worker : -1;
  }

 private:
  size_t LastByte() const { return static_cast<size_t>(first.bytes_used()) - 1; }
};

struct EgressOptions {
  EgressNeighbours v4;
  EgressNeighbours v6;
  size_t max_sessions = 20'000;  // of each family, of this worker
  std::vector<EgressDatagrams*> datagrams;  // by relay; outlive the worker; none: UDP is dropped
  FlowShortcuts* shortcuts = nullptr;  // outlives the worker; nullptr: there are none
};

// A TCP flow past the tunnel, as its worker knows it.
struct TcpFlowId {
  uint16_t worker = 0;
  bool v6 = false;
  uint16_t port = 0;  // of the worker's neighbour
  uint32_t place = 0;
  uint32_t generation = 0;  // of the flows that have had this place

  bool operator==(const TcpFlowId&) const = default;
};

// The datagrams of one inner source that leave one way past the tunnel, as their relay knows them.
struct UdpSessionId {
  uint16_t relay = 0;  // of which worker
  uint32_t place = 0;
  uint32_t generation = 0;  // of the sessions that have had this place

  bool operator==(const UdpSessionId&) const = default;
  template <typename H>
  friend H AbslHashValue(H state, const UdpSessionId& id) {
    return H::combine(std::move(state), id.relay, id.place, id.generation);
  }
};

// What became of one whose SYN is held, or which a relay had.
struct TcpVerdict {
  enum class Type : uint8_t {
    kNone,
    kOpen,         // the relay waits for it
    kRefuse,       // answer with a reset
    kUnreachable,  // answer with this error
    kForget,       // answer nothing, as a network that loses it
    kEnd,          // the relay has closed both ends
  };
  Type type = Type::kNone;
  TcpFlowId flow;
  IcmpError::What error = IcmpError::What::kNoHost;
};

}  // namespace braid
