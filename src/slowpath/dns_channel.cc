#include "slowpath/dns_channel.h"

#include <sodium.h>

#include <boost/asio/post.hpp>

namespace braid {
namespace {

constexpr DurationNs kPortLifeNs = 5 * kSecondNs;

}  // namespace

DnsChannel::DnsChannel(Shared& shared, const EgressAction& by, const Endpoint& server)
    : shared_(shared), by_(by), server_(server), idle_since_ns_(MonotonicNowNs()) {}

DnsChannel::~DnsChannel() { Close(); }

void DnsChannel::Close() {
  is_closed_ = true;
  for (Link& link : links_) {
    if (link.carrier) link.carrier->Close();
    link = {};
  }
  queries_.clear();
}

uint16_t DnsChannel::Ask(const DnsQuestion& question, Bytes message, Done done) {
  uint16_t id;
  do {
    randombytes_buf(&id, sizeof(id));
  } while (queries_.contains(id));
  Query& query = queries_[id];
  query.question = question;
  query.message.assign(message.begin(), message.end());
  query.done = std::move(done);
  query.asked_ns = MonotonicNowNs();
  SetDnsId(query.message, id);
  Send(query);
  return id;
}

// A stream loses nothing.
void DnsChannel::Repeat(uint16_t id) {
  const auto found = queries_.find(id);
  if (found == queries_.end() || found->second.by != kDatagrams) return;
  if (links_[kDatagrams].carrier) links_[kDatagrams].carrier->Send(found->second.message);
}

void DnsChannel::OnLate(uint16_t id) {
  const auto found = queries_.find(id);
  if (found == queries_.end()) return;
  Query& query = found->second;
  Link& link = links_[query.by];
  const bool is_useless = query.by == kDatagrams && !link.has_answered;
  const bool is_silent = is_useless || link.heard_ns <= query.asked_ns;
  if (query.by == kDatagrams) {
    if (by_.to == EgressAction::To::kDirect) return;
    if (!is_silent) return GoOnByStream(query);
    without_datagrams_until_ns_ = MonotonicNowNs() + shared_.without_datagrams_ns;
  } else if (!is_silent || !link.carrier) {
    return;
  }
  if (link.carrier) link.carrier->Close();
  OnEnd(query.by);
}

std::optional<DnsReply> DnsChannel::Forget(uint16_t id) {
  const auto found = queries_.find(id);
  if (found == queries_.end()) return std::nullopt;
  std::optional<DnsReply> truncated = std::move(found->second.truncated);
  queries_.erase(found);
  NoteIdle();
  return truncated;
}

bool DnsChannel::HasDatagrams() const {
  if (by_.to == EgressAction::To::kDirect) return true;
  const TimeNs now_ns = MonotonicNowNs();
  if (now_ns < without_datagrams_until_ns_) return false;
  if (links_[kDatagrams].carrier) return true;
  const auto without = shared_.without_datagrams_until_ns.find(by_.group);
  return without == shared_.without_datagrams_until_ns.end() || now_ns >= without->second;
}

void DnsChannel::Send(Query& query) {
  if (query.by == kDatagrams && !HasDatagrams()) return GoOnByStream(query);
  Link& link = links_[query.by];
  // A port that stays the same could be looked for, and answers forged to it.
  const bool is_alone = queries_.size() == 1;
  if (link.carrier && query.by == kDatagrams && by_.to == EgressAction::To::kDirect && is_alone &&
      MonotonicNowNs() - link.opened_ns > kPortLifeNs) {
    link.carrier->Close();
    link = {};
  }
  if (link.carrier) return link.carrier->Send(query.message);
  if (!std::exchange(link.is_opening, true)) Open(query.by);
}

void DnsChannel::GoOnByStream(Query& query) {
  ++shared_.over_tcp;
  query.by = kStream;
  query.was_lost = false;
  Send(query);
}

void DnsChannel::Open(Means means) {
  const auto self = shared_from_this();
  if (means == kStream) {
    return shared_.ways.connect(by_, server_, [self](Dialed dialed) {
      if (self->is_closed_) return;
      self->OnOpened(kStream,
                     CarryDnsByStream(self->shared_.io, std::move(dialed), self->CallsOf(kStream)));
    });
  }
  if (by_.to == EgressAction::To::kDirect) {
    return boost::asio::post(shared_.io, [self] {
      if (self->is_closed_) return;
      self->OnOpened(kDatagrams,
                     CarryDnsDirectly(self->shared_.io, self->server_, self->CallsOf(kDatagrams)));
    });
  }
  shared_.ways.associate(by_, [self](UpstreamGroup::Association made) {
    if (self->is_closed_) return;
    std::shared_ptr<DnsCarrier> carrier;
    if (made.control) {
      carrier = CarryDnsByRelay(self->shared_.io, self->server_, std::move(made),
                                self->CallsOf(kDatagrams));
    }
    self->OnOpened(kDatagrams, std::move(carrier));
  });
}

// Carriers are closed with the channel, and call nothing from then on.
DnsCarrier::Calls DnsChannel::CallsOf(Means means) {
  return {[this, means](Bytes message) { OnMessage(means, message); },
          [this, means] { OnEnd(means); }};
}

void DnsChannel::OnOpened(Means means, std::shared_ptr<DnsCarrier> carrier) {
  const bool is_there = carrier != nullptr;
  if (links_[means].carrier) {
    // One that nobody waited for any more, and that has been replaced.
    if (is_there) carrier->Close();
    return;
  }
  const TimeNs now_ns = MonotonicNowNs();
  links_[means] = {std::move(carrier), false, false, now_ns, now_ns};
  const bool may_go_by_stream = means == kDatagrams && by_.to == EgressAction::To::kGroup;
  if (!is_there && may_go_by_stream) {
    shared_.without_datagrams_until_ns[by_.group] = MonotonicNowNs() + shared_.without_datagrams_ns;
  }
  std::vector<uint16_t> unreachable;
  for (auto& [id, query] : queries_) {
    if (query.by != means) continue;
    if (is_there) {
      Send(query);
    } else if (may_go_by_stream) {
      GoOnByStream(query);
    } else {
      unreachable.push_back(id);
    }
  }
  GiveUp(unreachable);
}

void DnsChannel::OnMessage(Means means, Bytes message) {
  auto read = ReadDnsAnswer(message);
  const auto found = read ? queries_.find(read->id) : queries_.end();
  if (found == queries_.end() || read->question != found->second.question) {
    ++shared_.unasked;
    return;
  }
  links_[means].has_answered = true;
  links_[means].heard_ns = MonotonicNowNs();
  Query& query = found->second;
  DnsReply reply{{message.begin(), message.end()}, *std::move(read)};
  if (reply.read.truncated && means == kDatagrams) {
    query.truncated = std::move(reply);
    if (query.by == kDatagrams) GoOnByStream(query);
    return;
  }
  const Done done = std::move(query.done);
  queries_.erase(found);
  NoteIdle();
  done(std::move(reply));
}

// What was under way is asked once more, and again as long as answers come in between.
void DnsChannel::OnEnd(Means means) {
  const bool had_answered = links_[means].has_answered;
  links_[means] = {};
  std::vector<uint16_t> lost_twice;
  for (auto& [id, query] : queries_) {
    if (query.by != means) continue;
    if (query.was_lost && !had_answered) {
      lost_twice.push_back(id);
      continue;
    }
    query.was_lost |= !had_answered;
    Send(query);
  }
  GiveUp(lost_twice);
}

void DnsChannel::GiveUp(const std::vector<uint16_t>& ids) {
  const auto self = shared_from_this();
  std::vector<Query> given_up;
  for (const uint16_t id : ids) given_up.push_back(std::move(queries_.extract(id).mapped()));
  NoteIdle();
  for (Query& query : given_up) {
    if (is_closed_) return;
    query.done(std::move(query.truncated));
  }
}

void DnsChannel::NoteIdle() {
  if (queries_.empty()) idle_since_ns_ = MonotonicNowNs();
}

}  // namespace braid
