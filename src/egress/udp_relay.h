// A thread that carries UDP past the tunnel: straight out, or through SOCKS5 servers that relay
// datagrams (RFC 1928, section 7). Each inner source (address and port) has one session for each
// way out, with one socket, whatever it speaks with, and whoever answers to that socket reaches it:
// an endpoint-independent mapping (RFC 4787).
//
//   workers ── packets ──► session ──► socket ──► the destination, or a server's relay
//   TUN ◄── packets, rebuilt with the original addresses ◄──┘
//
// Datagrams are taken and given in trains, by UDP_SEGMENT, UDP_GRO, and super-packets of the
// device. A session that is idle for a while ends; when all are in use, the one that has been idle
// longest.
#pragma once

#include <array>
#include <atomic>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/statusor.h"
#include "base/counters.h"
#include "base/ring.h"
#include "fastpath/flow_index.h"
#include "fastpath/mailbox.h"
#include "fastpath/segmenter.h"
#include "io/unique_fd.h"

namespace braid {

class UdpRelay {
 public:
  static constexpr size_t kMaxQueryBytes = 512;

  // These are called on the relay's thread; they neither wait nor call the relay. False: there is
  // no room.
  struct Calls {
    // A session begins that wants a server: Open() or Refuse() follows.
    std::function<bool(const UdpSessionId&, const EgressAction&)> on_begin;
    // One that was told of is over. It is called again until there is room, and none begins before;
    // and once more for one that is opened after its end.
    std::function<bool(const UdpSessionId&)> on_end;
    // Takes what goes to port 53; the flow is the packet's own. Unset: it goes as all else does.
    std::function<bool(const FlowKey& flow, const EgressAction&, Bytes query)> on_query;
  };

  struct Options {
    int index = 0;
    int workers = 1;   // that give it packets
    int tun_fd = -1;   // a queue of the device, to write to
    bool uso = false;  // the device takes super-packets of UDP
    int max_gso_datagrams = 1;
    size_t max_sessions = 4096;
    DurationNs idle_ns = 60 * kSecondNs;
    Calls calls;
  };

  explicit UdpRelay(Options options);
  ~UdpRelay();
  UdpRelay(const UdpRelay&) = delete;
  UdpRelay& operator=(const UdpRelay&) = delete;

  // Where workers put packets; lives as long as this.
  EgressDatagrams& datagrams() { return datagrams_; }

  void Start();
  void Stop();

  // --- From any thread; false when there is no room ---

  // The session's socket, which is connected to the server's relay. `hold` goes when it ends.
  bool Open(const UdpSessionId& session, UniqueFd socket, std::shared_ptr<void> hold);
  // There is none to be had: what waits is dropped, and so is what comes for a while.
  bool Refuse(const UdpSessionId& session);
  // The server has ended it.
  bool End(const UdpSessionId& session);
  bool EndAll();
  // Into the device, from `source`, as if it had come from there.
  bool Answer(const Endpoint& source, const Endpoint& destination, std::vector<uint8_t> payload);

  // --- Read at any time ---
  struct Totals {
    std::atomic<uint64_t> sessions{0};
    Counter begun;
    Counter refused;
    Counter expired;                   // idle for too long
    Counter evicted;                   // others needed the place
    Counter up_packets, up_bytes;      // that the kernel has taken; bytes of payload
    Counter down_packets, down_bytes;  // as well
    // Datagrams that went nowhere.
    Counter fragments;    // from servers, in parts
    Counter malformed;    // from servers, not to be understood; or with a wrong checksum
    Counter too_big;      // for the way out, or for a datagram at all
    Counter unsent;       // the kernel did not take it
    Counter not_waiting;  // too many wait for a session to open, or it did not
  };
  const Totals& totals() const { return totals_; }

 private:
  using Place = FlowIndex::Place;
  static constexpr Place kNowhere = FlowIndex::kNowhere;
  static constexpr size_t kTrains = 8;
  static constexpr size_t kMaxJoined = 64;              // UDP_MAX_SEGMENTS before Linux 6.9
  static constexpr size_t kMaxWaitingBytes = 64 << 10;  // for a session to open
  static constexpr size_t kMaxAllWaitingBytes = 16 << 20;

  using Waiting = std::vector<std::pair<Endpoint, std::vector<uint8_t>>>;
  struct Session;
  struct Train;
  struct Message {
    enum class Type : uint8_t { kNone, kOpen, kRefuse, kEnd, kEndAll, kAnswer, kStop };
    Type type = Type::kNone;
    UdpSessionId session;
    UniqueFd socket;
    std::shared_ptr<void> hold;
    Endpoint source, destination;
    std::vector<uint8_t> payload;
  };

  bool Tell(Message&& message);
  void Run();
  void TakeMessages();
  void Take(Message& message);

  void TakePackets(RecordRing& packets);
  void TakePacket(const EgressAction& action, MutableBytes from_tun);
  Place FindOrBegin(const Endpoint& source, const EgressAction& action);
  bool OpenDirect(Session& session);
  void Send(Place place, const Endpoint& to, Bytes payload);
  void AddToTrain(Place place, const Endpoint& to, Bytes payload);
  void FlushTrain(Train& train);
  void FlushTrains();

  void OnReadable(uint64_t tag);
  void TakeDatagrams(Place place, MutableBytes all, size_t datagram_bytes, const Endpoint& from);
  void Deliver(const Endpoint& source, const Endpoint& destination, Bytes payload);
  void FlushJoined();

  void Use(Place place);
  void Unlink(Place place);
  Waiting TakeWaiting(Session& session);
  void EndSession(Place place);
  void TellOfEnds();
  void Expire();
  Session* Find(const UdpSessionId& id);
  UdpSessionId IdOf(Place place) const;

  const Options options_;
  EgressDatagrams datagrams_;
  UniqueFd epoll_;
  Ring<Message> messages_;
  bool stopping_ = false;
  TimeNs now_ns_ = 0;
  Segmenter segmenter_;
  std::vector<Session> sessions_;
  size_t waiting_bytes_ = 0;  // of all of them
  std::vector<Place> free_;
  FlowIndex index_;
  Place oldest_ = kNowhere, newest_ = kNowhere;  // by last use
  std::deque<UdpSessionId> ended_;               // of which nobody could be told yet
  std::vector<Train> trains_;
  std::unique_ptr<uint8_t[]> scratch_;

  // Datagrams of one flow that go into the device as one write; they borrow their payloads.
  struct Joined {
    Endpoint source, destination;
    size_t datagram_bytes = 0;  // of each but the last
    size_t bytes = 0;
    bool is_complete = false;  // the last one was shorter
    size_t datagrams = 0;
    std::array<iovec, 1 + kMaxJoined> parts;  // the headers, and then the payloads
  };
  Joined joined_;
  uint16_t identification_ = 0;
  Totals totals_;
  std::thread thread_;
};

}  // namespace braid
