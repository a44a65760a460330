// One way to one DNS server, and the queries that are under way there. They go as datagrams where
// the way has any; else by TCP, and so does one whose answer does not fit a datagram. Lives on the
// thread of its io_context, which must outlive it; always held by a shared pointer.
#pragma once

#include <array>
#include <boost/asio/io_context.hpp>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "base/address.h"
#include "base/bytes.h"
#include "base/clock.h"
#include "egress/dns_message.h"
#include "fastpath/egress_rules.h"
#include "slowpath/dns_carrier.h"
#include "slowpath/tcp_dialer.h"
#include "slowpath/upstream_group.h"

namespace braid {

// Which server is asked, and by which way.
struct DnsRoute {
  EgressAction::To to = EgressAction::To::kDirect;
  uint16_t group = 0;
  Endpoint server;

  static DnsRoute Of(const EgressAction& by, const Endpoint& server) {
    return {by.to, by.to == EgressAction::To::kGroup ? by.group : uint16_t{0}, server};
  }
  bool operator==(const DnsRoute&) const = default;
  template <typename H>
  friend H AbslHashValue(H state, const DnsRoute& route) {
    return H::combine(std::move(state), route.to, route.group, route.server.address,
                      route.server.port);
  }
};

// How servers are reached but for datagrams straight to them. `done` is called once, in the loop,
// later; it may come too late.
struct DnsWays {
  // A TCP connection to the server.
  std::function<void(const EgressAction& by, const Endpoint& server, TcpDialer::OnDialed done)>
      connect;
  // A relay of datagrams, at one of a group.
  std::function<void(const EgressAction& by, UpstreamGroup::OnAssociated done)> associate;
};

struct DnsReply {
  std::vector<uint8_t> message;
  DnsAnswer read;
};

class DnsChannel : public std::enable_shared_from_this<DnsChannel> {
 public:
  // What all channels of a forwarder have in common. Outlives them.
  struct Shared {
    boost::asio::io_context& io;
    DnsWays ways;
    DurationNs without_datagrams_ns = 0;  // for so long a group is not asked for a relay again
    absl::flat_hash_map<uint16_t, TimeNs> without_datagrams_until_ns{};  // by group
    uint64_t unasked = 0;
    uint64_t over_tcp = 0;
  };
  // The answer, with an id of the channel's own. Nothing: the server cannot be reached.
  using Done = std::function<void(std::optional<DnsReply> reply)>;

  DnsChannel(Shared& shared, const EgressAction& by, const Endpoint& server);
  ~DnsChannel();

  // Calls `done` once, in the loop, later; not after Forget() or Close(). Returns the id by which
  // the query is known here. There are fewer than 65,536 of them.
  uint16_t Ask(const DnsQuestion& question, Bytes message, Done done);
  // Once more, in case it got lost.
  void Repeat(uint16_t id);
  // It has waited for long. What has been silent for all that time is done without: a relay that
  // was granted may lose datagrams, and a connection may be gone without a word.
  void OnLate(uint16_t id);
  // What came of the answer, where that was truncated.
  std::optional<DnsReply> Forget(uint16_t id);
  void Close();

  // Since when nothing is under way; kNever while something is.
  TimeNs idle_since_ns() const { return queries_.empty() ? idle_since_ns_ : kNever; }

 private:
  enum Means : uint8_t { kDatagrams, kStream };
  struct Link {
    std::shared_ptr<DnsCarrier> carrier;
    bool is_opening = false;
    bool has_answered = false;  // anything
    TimeNs opened_ns = 0;
    TimeNs heard_ns = 0;  // when it answered last, or was opened
  };
  struct Query {
    DnsQuestion question;
    std::vector<uint8_t> message;
    Done done;
    TimeNs asked_ns = 0;
    Means by = kDatagrams;
    bool was_lost = false;  // with a carrier that had answered nothing
    std::optional<DnsReply> truncated;
  };

  bool HasDatagrams() const;
  void Send(Query& query);
  void GoOnByStream(Query& query);
  void Open(Means means);
  DnsCarrier::Calls CallsOf(Means means);
  void OnOpened(Means means, std::shared_ptr<DnsCarrier> carrier);
  void OnMessage(Means means, Bytes message);
  void OnEnd(Means means);
  void GiveUp(const std::vector<uint16_t>& ids);
  void NoteIdle();

  Shared& shared_;
  const EgressAction by_;
  const Endpoint server_;
  std::array<Link, 2> links_;  // by means
  TimeNs without_datagrams_until_ns_ = 0;
  absl::flat_hash_map<uint16_t, Query> queries_;
  TimeNs idle_since_ns_;
  bool is_closed_ = false;
};

}  // namespace braid
