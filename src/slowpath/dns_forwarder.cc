#include "slowpath/dns_forwarder.h"

#include <algorithm>
#include <chrono>

namespace braid {
namespace {

using boost::system::error_code;

constexpr DurationNs kLookForIdleDnsChannelsNs = kSecondNs;

}  // namespace

struct DnsForwarder::Transaction {
  // A server that was asked, and has not failed.
  struct Asked {
    size_t attempt = 0;
    std::shared_ptr<DnsChannel> channel;
    uint16_t id = 0;
  };

  Transaction(boost::asio::io_context& io, Key of, const EgressAction& action, DnsQuery what,
              const DnsRoute& route)
      : key(std::move(of)),
        by(action),
        query(std::move(what)),
        alike(route, DnsCache::QueryKey::Of(query)),
        timer(io) {}

  const Key key;
  const EgressAction by;
  const DnsQuery query;
  const Alike alike;
  std::vector<uint8_t> message;
  std::vector<TransactionPtr> followers;  // that ask the same, and wait for its answer
  bool is_follower = false;
  boost::asio::steady_timer timer;
  TimeNs until_ns = 0;
  DurationNs half_of_part_ns = 0;  // of the time that the server has which was asked last
  bool is_late = false;            // the first half is over
  size_t first_server = 0;
  size_t attempts = 0;
  std::vector<Asked> asked;
  bool is_over = false;
};

DnsForwarder::DnsForwarder(boost::asio::io_context& io, Options options)
    : io_(io),
      options_(std::move(options)),
      shared_{io, options_.ways, options_.without_datagrams_ns},
      look_for_idle_(io) {
  if (options_.cache) caches_.emplace(*options_.cache);
}

DnsForwarder::~DnsForwarder() { Close(); }

void DnsForwarder::Close() {
  *closed_ = true;
  look_for_idle_.cancel();
  for (auto& [route, channel] : channels_) channel->Close();
  channels_.clear();
  for (auto& [key, transaction] : under_way_) {
    transaction->timer.cancel();
    transaction->asked.clear();
    transaction->followers.clear();
  }
  under_way_.clear();
  shared_queries_.clear();
  others_.clear();
}

void DnsForwarder::Reset() {
  for (auto& [route, channel] : channels_) channel->Close();
  channels_.clear();
  shared_.without_datagrams_until_ns.clear();
  if (caches_) caches_->Clear();
  first_server_ = 0;
  std::vector<TransactionPtr> all;
  for (auto& [key, transaction] : under_way_) {
    if (!transaction->is_follower) all.push_back(transaction);
  }
  for (const TransactionPtr& transaction : all) {
    transaction->asked.clear();
    Begin(transaction);
  }
}

// --- What comes from programs ---

void DnsForwarder::Ask(const Endpoint& client, const Endpoint& server, const EgressAction& by,
                       Bytes message) {
  ++totals_.queries;
  auto query = message.size() <= kMaxDnsQueryBytes ? ReadDnsQuery(message) : std::nullopt;
  if (!query) {
    ++totals_.malformed;
    return;
  }
  Key key{client, server, query->id, query->question};
  if (const auto known = under_way_.find(key); known != under_way_.end()) {
    ++totals_.repeated;
    const TransactionPtr& asks =
        known->second->is_follower ? shared_queries_.at(known->second->alike) : known->second;
    for (const auto& asked : asks->asked) asked.channel->Repeat(asked.id);
    return;
  }
  auto kept = caches_ ? caches_->Find(CacheRoute(by, server), *query, message, MonotonicNowNs())
                      : std::nullopt;
  if (kept) {
    ++totals_.answered;
    ++totals_.from_cache;
    if (const auto read = ReadDnsAnswer(*kept)) Learn(client.address, read->addresses);
    return Deliver(key, *query, *std::move(kept));
  }
  if (under_way_.size() >= kMaxDnsQueries) {
    ++totals_.refused;
    return;
  }
  auto transaction = std::make_shared<Transaction>(io_, std::move(key), by, *std::move(query),
                                                   CacheRoute(by, server));
  transaction->message.assign(message.begin(), message.end());
  if (Join(transaction)) return;
  under_way_.emplace(transaction->key, transaction);
  Begin(transaction);
}

// True when it is not to be asked for by itself.
bool DnsForwarder::Join(const TransactionPtr& transaction) {
  if (!transaction->query.can_share_answer) {
    size_t& others = others_[transaction->alike];
    const bool is_refused = others == kMaxAlikeDnsQueries;
    if (is_refused) {
      ++totals_.refused;
    } else {
      ++others;
    }
    return is_refused;
  }
  const auto [shared, is_first] = shared_queries_.try_emplace(transaction->alike, transaction);
  if (is_first) return false;
  transaction->is_follower = true;
  shared->second->followers.push_back(transaction);
  under_way_.emplace(transaction->key, transaction);
  return true;
}

void DnsForwarder::Begin(const TransactionPtr& transaction) {
  transaction->until_ns = MonotonicNowNs() + options_.timeout_ns;
  transaction->first_server = first_server_;
  transaction->attempts = 0;
  AskNext(transaction);
}

void DnsForwarder::AskNext(const TransactionPtr& transaction) {
  const Endpoint server = options_.servers.empty()
                              ? transaction->key.server
                              : options_.servers[ServerOf(*transaction, transaction->attempts)];
  const std::shared_ptr<DnsChannel> channel = ChannelTo(transaction->by, server);
  if (channel == nullptr) {
    totals_.refused += End(transaction).size();
    return;
  }
  const size_t attempt = transaction->attempts++;
  const uint16_t id = channel->Ask(transaction->query.question, transaction->message,
                                   [this, transaction, attempt](std::optional<DnsReply> reply) {
                                     OnReply(transaction, attempt, std::move(reply));
                                   });
  transaction->asked.push_back({attempt, channel, id});

  const TimeNs now_ns = MonotonicNowNs();
  const DurationNs left_ns = std::max(transaction->until_ns, now_ns) - now_ns;
  transaction->half_of_part_ns = left_ns / (Servers() - attempt) / 2;
  transaction->is_late = false;
  Await(transaction);
}

void DnsForwarder::Await(const TransactionPtr& transaction) {
  transaction->timer.expires_after(std::chrono::nanoseconds(transaction->half_of_part_ns));
  transaction->timer.async_wait([this, closed = closed_, transaction](const error_code& error) {
    if (error || *closed || transaction->is_over) return;
    const bool was_set_anew = transaction->timer.expiry() > std::chrono::steady_clock::now();
    if (was_set_anew) return;
    transaction->is_late ? OnTooLate(transaction) : OnLate(transaction);
  });
}

// --- What becomes of them ---

void DnsForwarder::OnReply(const TransactionPtr& transaction, size_t attempt,
                           std::optional<DnsReply> reply) {
  if (transaction->is_over) return;
  if (reply) return PassOn(transaction, *std::move(reply));
  std::erase_if(transaction->asked, [attempt](const auto& one) { return one.attempt == attempt; });
  const bool is_newest = attempt + 1 == transaction->attempts;
  if (is_newest && AskAnother(transaction)) return;
  if (transaction->asked.empty()) Fail(transaction, totals_.unreachable);
}

void DnsForwarder::OnLate(const TransactionPtr& transaction) {
  transaction->is_late = true;
  Await(transaction);
  const auto newest = transaction->asked.back();
  newest.channel->OnLate(newest.id);
}

void DnsForwarder::OnTooLate(const TransactionPtr& transaction) {
  if (AskAnother(transaction)) return;
  for (const auto& asked : transaction->asked) {
    // Better than nothing: the program may ask by TCP itself.
    auto truncated = asked.channel->Forget(asked.id);
    if (truncated) return PassOn(transaction, *std::move(truncated));
  }
  Fail(transaction, totals_.timed_out);
}

// What was asked before may still answer. False: every server was asked.
bool DnsForwarder::AskAnother(const TransactionPtr& transaction) {
  if (ServerOf(*transaction, transaction->attempts - 1) == first_server_) {
    first_server_ = (first_server_ + 1) % Servers();
  }
  if (transaction->attempts == Servers()) return false;
  AskNext(transaction);
  return true;
}

void DnsForwarder::PassOn(const TransactionPtr& transaction, DnsReply reply) {
  const std::vector<TransactionPtr> all = End(transaction);
  totals_.answered += all.size();
  for (const TransactionPtr& one : all) Learn(one->key.client.address, reply.read.addresses);
  if (caches_) {
    caches_->Put(transaction->alike.first, transaction->query, reply.message, MonotonicNowNs());
  }
  for (const TransactionPtr& one : all) {
    std::vector<uint8_t> answer = reply.message;
    FitDnsAnswer(answer, one->message);
    Deliver(one->key, one->query, std::move(answer));
  }
}

void DnsForwarder::Fail(const TransactionPtr& transaction, uint64_t& why) {
  for (const TransactionPtr& one : End(transaction)) {
    ++why;
    Deliver(one->key, one->query, MakeDnsError(one->message, kDnsServerFailure));
  }
}

std::vector<DnsForwarder::TransactionPtr> DnsForwarder::End(const TransactionPtr& transaction) {
  std::vector<TransactionPtr> all = {transaction};
  for (TransactionPtr& follower : std::exchange(transaction->followers, {})) {
    all.push_back(std::move(follower));
  }
  for (const TransactionPtr& one : all) {
    one->is_over = true;
    under_way_.erase(one->key);
  }
  transaction->timer.cancel();
  for (const auto& asked : std::exchange(transaction->asked, {})) asked.channel->Forget(asked.id);
  if (transaction->query.can_share_answer) {
    shared_queries_.erase(transaction->alike);
  } else if (--others_[transaction->alike] == 0) {
    others_.erase(transaction->alike);
  }
  return all;
}

void DnsForwarder::Learn(const IpAddress& client, const std::vector<DnsAddress>& addresses) const {
  if (!options_.on_learned) return;
  for (const DnsAddress& one : addresses) options_.on_learned(client, one);
}

void DnsForwarder::Deliver(const Key& to, const DnsQuery& query, std::vector<uint8_t> answer) {
  if (*closed_) return;
  if (answer.size() > query.udp_bytes) answer = TruncatedDnsAnswer(answer);
  options_.on_answer(to.client, to.server, std::move(answer));
}

// --- Servers ---

size_t DnsForwarder::ServerOf(const Transaction& transaction, size_t attempt) const {
  return (transaction.first_server + attempt) % Servers();
}

// Whichever of the servers has answered, another one would have said the same.
DnsRoute DnsForwarder::CacheRoute(const EgressAction& by, const Endpoint& server) const {
  return DnsRoute::Of(by, options_.servers.empty() ? server : Endpoint());
}

std::shared_ptr<DnsChannel> DnsForwarder::ChannelTo(const EgressAction& by,
                                                    const Endpoint& server) {
  const DnsRoute route = DnsRoute::Of(by, server);
  if (const auto found = channels_.find(route); found != channels_.end()) return found->second;
  if (channels_.size() == kMaxDnsChannels && !CloseIdlestChannel()) return nullptr;
  const auto channel = std::make_shared<DnsChannel>(shared_, by, server);
  channels_.emplace(route, channel);
  if (channels_.size() == 1) CloseIdleChannelsLater();
  return channel;
}

// False: none is idle.
bool DnsForwarder::CloseIdlestChannel() {
  const auto idlest = std::min_element(
      channels_.begin(), channels_.end(), [](const auto& one, const auto& another) {
        return one.second->idle_since_ns() < another.second->idle_since_ns();
      });
  if (idlest->second->idle_since_ns() == kNever) return false;
  idlest->second->Close();
  channels_.erase(idlest);
  return true;
}

void DnsForwarder::CloseIdleChannelsLater() {
  look_for_idle_.expires_after(
      std::chrono::nanoseconds(std::min(options_.idle_ns, kLookForIdleDnsChannelsNs)));
  look_for_idle_.async_wait([this, closed = closed_](const error_code& error) {
    if (error || *closed) return;
    const TimeNs now_ns = MonotonicNowNs();
    absl::erase_if(channels_, [this, now_ns](const auto& one) {
      const TimeNs since_ns = one.second->idle_since_ns();
      if (since_ns == kNever || now_ns - since_ns < options_.idle_ns) return false;
      one.second->Close();
      return true;
    });
    if (!channels_.empty()) CloseIdleChannelsLater();
  });
}

DnsForwarder::Totals DnsForwarder::totals() const {
  Totals totals = totals_;
  totals.under_way = under_way_.size();
  totals.over_tcp = shared_.over_tcp;
  totals.unasked = shared_.unasked;
  totals.channels = channels_.size();
  if (caches_) totals.cache = caches_->totals();
  return totals;
}

}  // namespace braid
