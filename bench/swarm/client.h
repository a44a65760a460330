// One client of the swarm as its server sees it: handshakes with cookies and retries, keepalives,
// answers to pings, keys in time, sealed data. It has one path, and one socket for all its lanes.
// Sans I/O but for the outbox; the timing is that of slowpath/peers.cc where the server could
// notice.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "fastpath/control.h"
#include "fastpath/lane.h"
#include "outbox.h"
#include "slowpath/handshake.h"

namespace braid::swarm {

// What all clients have counted together.
struct Tally {
  uint64_t initiations = 0;
  uint64_t completed = 0;  // up to the first answer under the new keys
  uint64_t retries = 0;    // initiations that went unanswered for a second
  uint64_t cookies = 0;
  uint64_t failed = 0;  // given up
  uint64_t lost = 0;    // sessions that the server no longer answered
  uint64_t closed_by_server = 0;
  uint64_t refused = 0;             // datagrams that did not authenticate, or nobody waited for
  std::vector<float> latencies_ms;  // of each that completed, from its first initiation
};

struct ClientSettings {
  AeadSuite aeads;
  std::vector<Cipher> ciphers;
  int lanes = kDefaultLanes;
  uint16_t mtu = 1420;
  DurationNs keepalive_ns = 2 * kSecondNs;  // 0: none
  DurationNs rekey_after_ns = 120 * kSecondNs;
  DurationNs give_up_ns = 0;  // on a handshake; 0: never
};

class Client {
 public:
  // What it borrows outlives it. The low bits of its indices are `number` + 1.
  Client(uint32_t number, size_t socket, const Identity& identity, PeerKeys server,
         const ClientSettings& settings, Outbox& outbox, Tally& tally);

  static constexpr uint32_t kNumberBits = 17;
  static uint32_t NumberOf(uint32_t index) { return (index & ((1u << kNumberBits) - 1)) - 1; }

  void BeginHandshake(TimeNs now_ns);
  // Does what is due, and nothing before due_ns().
  void OnTime(TimeNs now_ns);
  // False when a cookie was for somebody else.
  bool OnDatagram(MutableBytes datagram, TimeNs now_ns);
  // One inner packet on the lane of its flow. False without keys.
  bool SendInner(Bytes packet, TimeNs now_ns);
  void Leave(TimeNs now_ns);

  uint32_t number() const { return number_; }
  size_t socket() const { return socket_; }
  TimeNs due_ns() const;
  bool handshaking() const { return began_ns_ != 0; }
  bool established() const { return current_ != nullptr && confirmed_; }
  TimeNs began_ns() const { return began_ns_; }

 private:
  struct Lane {
    LaneSender sender;
    LaneReceiver receiver;
  };

  void SendInitiation(TimeNs now_ns);
  void EndHandshake();
  void OnResponse(Bytes datagram, TimeNs now_ns);
  void OnSealed(const Header& header, MutableBytes datagram, TimeNs now_ns);
  void OnControl(Lane& lane, uint8_t lane_id, Bytes plain, TimeNs now_ns);
  void OnPong(uint64_t token, TimeNs now_ns);
  void SendPing(TimeNs now_ns);
  void SendControl(Lane& lane, uint8_t lane_id, const ControlMessage& message, TimeNs now_ns);
  void DropSession();
  Lane& LaneOf(uint8_t id);
  uint64_t NextCounter();

  const uint32_t number_;
  const size_t socket_;
  const Identity identity_;
  const PeerKeys server_;
  const ClientSettings& settings_;
  Outbox& outbox_;
  Tally& tally_;

  // The handshake under way, from the first initiation until the server has used its keys.
  TimeNs began_ns_ = 0;
  MacStamper stamper_;
  std::optional<InitiatorHandshake> attempt_;
  uint32_t attempt_index_ = 0;
  TimeNs retry_ns_ = 0;
  int attempts_ = 0;
  bool attempt_had_cookie_ = false;
  uint64_t last_counter_ = 0;
  uint32_t handshakes_ = 0;

  std::unique_ptr<const Keypair> previous_;
  std::unique_ptr<const Keypair> current_;
  bool confirmed_ = false;
  bool completed_once_ = false;
  uint64_t generation_ = 0;
  TimeNs established_ns_ = 0;

  uint64_t ping_token_ = 0;
  bool ping_under_way_ = false;
  TimeNs next_ping_ns_ = 0;
  int unanswered_pings_ = 0;

  Lane slow_;
  std::vector<std::unique_ptr<Lane>> lanes_;  // those that carried anything
};

}  // namespace braid::swarm
