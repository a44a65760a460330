#include "fastpath/tcp_sessions.h"

#include <utility>

namespace braid {

TcpSessions::TcpSessions(std::span<const uint16_t> ports, size_t max_in_use)
    : max_in_use_(max_in_use),
      sessions_(ports.size()),
      by_port_(65536, kNowhere),
      index_(ports.size()) {
  for (Place place = 0; place < sessions_.size(); ++place) {
    sessions_[place].port = ports[place];
    by_port_[ports[place]] = place;
    Append(free_, place);
  }
}

TcpSessions::Place TcpSessions::FindPort(uint16_t port) const {
  const Place place = by_port_[port];
  if (place == kNowhere) return kNowhere;
  const Session& session = sessions_[place];
  return session.state == State::kFree || session.is_detached ? kNowhere : place;
}

TcpSessions::Place TcpSessions::Begin(const FlowKey& flow) {
  if (!HasRoom()) return kNowhere;
  const Place place = TakeFirst(free_);
  Session& session = sessions_[place];
  session = {.flow = flow,
             .state = State::kPending,
             .port = session.port,
             .generation = session.generation + 1};
  index_.Put(flow, place);
  ++in_use_;
  return place;
}

void TcpSessions::Cancel(Place place) {
  Session& session = sessions_[place];
  index_.Remove(session.flow, place);
  session.state = State::kFree;
  Append(free_, place);
  --in_use_;
}

void TcpSessions::End(Place place, TimeNs now_ns) {
  Session& session = sessions_[place];
  session.state = State::kResting;
  session.rests_until_ns = now_ns + kRestNs;
  Append(resting_, place);
  --in_use_;
}

void TcpSessions::Detach(Place place) {
  Session& session = sessions_[place];
  index_.Remove(session.flow, place);
  session.is_detached = true;
}

TcpSessions::Place TcpSessions::Expire() {
  const Place place = TakeFirst(resting_);
  Session& session = sessions_[place];
  if (!session.is_detached) index_.Remove(session.flow, place);
  session.state = State::kFree;
  Append(free_, place);
  return place;
}

void TcpSessions::Append(List& list, Place place) {
  sessions_[place].next = kNowhere;
  (list.last == kNowhere ? list.first : sessions_[list.last].next) = place;
  list.last = place;
}

TcpSessions::Place TcpSessions::TakeFirst(List& list) {
  const Place place = list.first;
  if (place == kNowhere) return kNowhere;
  list.first = std::exchange(sessions_[place].next, kNowhere);
  if (list.first == kNowhere) list.last = kNowhere;
  return place;
}

}  // namespace braid
