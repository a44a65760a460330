// Answers queries of DNS that programs have sent to servers past the tunnel: passes them on by the
// way that a rule says, and what comes back on to them; and says which addresses names have. What
// was answered before is answered from memory. Lives on the thread of its io_context, which must
// outlive it.
//
//   Ask() ─► memory ─► the answer
//              │
//              ▼ (not there)
//            a server, by a channel ─► on_learned, on_answer
//              ▼ (silent, or not to be reached)
//            the next server … ─► an error
//
// What others ask, too, is asked once, and all get the answer. Else whoever wants a forged one to
// be taken could have many ids asked for at once, each of which it may guess.
#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "base/address.h"
#include "base/bytes.h"
#include "base/clock.h"
#include "egress/dns_cache.h"
#include "egress/dns_message.h"
#include "fastpath/egress_rules.h"
#include "slowpath/dns_caches.h"
#include "slowpath/dns_channel.h"

namespace braid {

inline constexpr size_t kMaxDnsQueries = 4096;    // under way
inline constexpr size_t kMaxAlikeDnsQueries = 8;  // of those that cannot share an answer
inline constexpr size_t kMaxDnsChannels = 256;
inline constexpr size_t kMaxDnsQueryBytes = 4096;

class DnsForwarder {
 public:
  struct Options {
    // Who is asked in place of whom a program asks, one after the other; empty: whom it asks. When
    // one has not answered, the next is asked first from then on.
    std::vector<Endpoint> servers;
    std::optional<DnsCache::Options> cache = DnsCache::Options();  // nothing: none
    DurationNs timeout_ns = 5 * kSecondNs;  // of a query; servers have equal parts of it
    DurationNs idle_ns = 30 * kSecondNs;    // for so long a channel stays that nobody needs
    DurationNs without_datagrams_ns = 60 * kSecondNs;  // where a group relays none, or loses them
    DnsWays ways;
    // The answer to `client`, as if from `server`. Also within Ask().
    std::function<void(const Endpoint& client, const Endpoint& server, std::vector<uint8_t> answer)>
        on_answer;
    // An answer to `client` says this; before it is passed on. Unset: nobody wants it.
    std::function<void(const IpAddress& client, const DnsAddress& one)> on_learned;
  };

  DnsForwarder(boost::asio::io_context& io, Options options);
  ~DnsForwarder();
  DnsForwarder(const DnsForwarder&) = delete;
  DnsForwarder& operator=(const DnsForwarder&) = delete;

  // `by`: directly, or through a group. A number of a group is never another one's.
  void Ask(const Endpoint& client, const Endpoint& server, const EgressAction& by, Bytes query);
  // Of the servers the one that is asked first now; nothing where there are none.
  std::optional<Endpoint> first_server() const {
    if (options_.servers.empty()) return std::nullopt;
    return options_.servers[first_server_];
  }
  // The network is another one: what was answered there is forgotten, and what is under way is
  // asked anew.
  void Reset();
  // Nothing is called after this.
  void Close();

  // Each query is counted once more: as what became of it, or it is under way.
  struct Totals {
    uint64_t queries = 0;
    uint64_t answered = 0;
    uint64_t from_cache = 0;   // of these
    uint64_t repeated = 0;     // while they were under way already
    uint64_t timed_out = 0;    // answered with an error
    uint64_t unreachable = 0;  // as well: no server could be reached
    uint64_t malformed = 0;    // not to be understood
    uint64_t refused = 0;      // too many were under way, or to too many servers
    uint64_t under_way = 0;
    // Of what goes to servers, and comes from them.
    uint64_t over_tcp = 0;  // queries
    uint64_t unasked = 0;   // answers that were to none, or from somebody else
    uint64_t channels = 0;
    DnsCache::Totals cache;
  };
  Totals totals() const;

 private:
  // A query is known by it until it is over: the same once more is only a reminder.
  struct Key {
    Endpoint client;
    Endpoint server;
    uint16_t id = 0;
    DnsQuestion question;

    bool operator==(const Key&) const = default;
    template <typename H>
    friend H AbslHashValue(H state, const Key& key) {
      return H::combine(std::move(state), key.client.address, key.client.port, key.id,
                        key.question);
    }
  };
  struct Transaction;
  using TransactionPtr = std::shared_ptr<Transaction>;
  // By what it asks, and whom.
  using Alike = std::pair<DnsRoute, DnsCache::QueryKey>;

  bool Join(const TransactionPtr& transaction);
  void Begin(const TransactionPtr& transaction);
  void AskNext(const TransactionPtr& transaction);
  void Await(const TransactionPtr& transaction);
  void OnReply(const TransactionPtr& transaction, size_t attempt, std::optional<DnsReply> reply);
  void OnLate(const TransactionPtr& transaction);
  void OnTooLate(const TransactionPtr& transaction);
  bool AskAnother(const TransactionPtr& transaction);
  void PassOn(const TransactionPtr& transaction, DnsReply reply);
  void Fail(const TransactionPtr& transaction, uint64_t& why);
  // All that have asked for it, itself too.
  std::vector<TransactionPtr> End(const TransactionPtr& transaction);
  void Learn(const IpAddress& client, const std::vector<DnsAddress>& addresses) const;
  void Deliver(const Key& to, const DnsQuery& query, std::vector<uint8_t> answer);

  size_t Servers() const { return options_.servers.empty() ? 1 : options_.servers.size(); }
  size_t ServerOf(const Transaction& transaction, size_t attempt) const;
  DnsRoute CacheRoute(const EgressAction& by, const Endpoint& server) const;
  std::shared_ptr<DnsChannel> ChannelTo(const EgressAction& by, const Endpoint& server);
  bool CloseIdlestChannel();
  void CloseIdleChannelsLater();

  boost::asio::io_context& io_;
  const Options options_;
  std::optional<DnsCaches> caches_;
  DnsChannel::Shared shared_;
  absl::flat_hash_map<DnsRoute, std::shared_ptr<DnsChannel>> channels_;
  absl::flat_hash_map<Key, TransactionPtr> under_way_;
  absl::flat_hash_map<Alike, TransactionPtr> shared_queries_;  // whose answer others wait for, too
  absl::flat_hash_map<Alike, size_t> others_;                  // under way, that cannot share
  size_t first_server_ = 0;
  boost::asio::steady_timer look_for_idle_;
  Totals totals_;
  const std::shared_ptr<bool> closed_ = std::make_shared<bool>(false);
};

}  // namespace braid
