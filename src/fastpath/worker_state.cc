#include "fastpath/worker_state.h"

#include <sodium.h>

#include <algorithm>

namespace braid {
namespace {

constexpr DurationNs kAskForHandshakeEveryNs = kSecondNs;
constexpr size_t kKeypairsPerPeer = 3;  // previous, current, next

size_t LanesPerWorker(const WorkerOptions& options) {
  return static_cast<size_t>((options.lanes + options.workers - 1) / options.workers);
}

}  // namespace

WorkerState::WorkerState(const WorkerOptions& worker_options)
    : options(worker_options),
      sessions_by_index(options.max_peers * kKeypairsPerPeer),
      sessions(options.max_peers),
      lane_pool(options.max_peers * LanesPerWorker(options)),
      sockets(options.lanes, options.workers),
      bonded(options.max_peers) {
  for (auto& session : sessions) {
    session = std::make_unique<Session>();
    session->lanes.resize(LanesPerWorker(options));
  }
}

LaneState* WorkerState::TakeLane(Session& session, uint8_t lane) {
  LaneState*& state =
      session.lanes[static_cast<size_t>(lane) / static_cast<size_t>(options.workers)];
  if (state == nullptr) {
    state = lane_pool.Take(lane);
    if (state != nullptr) lanes.Add(lane);
  }
  return state;
}

void WorkerState::EndSession(PeerSlot peer) {
  Session& session = *sessions[peer];
  for (LaneState* lane : session.lanes) {
    if (lane != nullptr) lane_pool.Return(lane);
  }
  ended_rx_packets.Add(session.rx_packets.Get());
  ended_tx_packets.Add(session.tx_packets.Get());
  ended_rx_bytes.Add(session.rx_bytes.Get());
  ended_tx_bytes.Add(session.tx_bytes.Get());
  session.BeginAnew();
}

void WorkerState::HandTo(int worker, HandedPacket&& handed, uint64_t packets) {
  WorkerMailbox& mailbox = *options.mailboxes[static_cast<size_t>(worker)];
  if (!mailbox.packets.TryPush(std::move(handed))) {
    drops.Count(Drop::inbox_full, packets);
    return;
  }
  handed_over.Add(packets);
  mailbox.doorbell.Ring();
}

bool WorkerState::Tell(Event&& event) {
  if (!options.slow_path->events.TryPush(std::move(event))) {
    drops.Count(Drop::inbox_full);
    return false;
  }
  options.slow_path->doorbell.Ring();
  return true;
}

void WorkerState::TellOfDns(Event::Type type, const FlowKey& flow, Bytes message) {
  if (message.size() > Event::kMaxDatagramBytes) return;
  if (options.slow_path->events.ApproximateSize() > kMostDnsEvents) {
    return drops.Count(Drop::inbox_full);
  }
  Event event;
  event.type = type;
  event.flow = flow;
  event.length = static_cast<uint16_t>(message.size());
  std::copy(message.begin(), message.end(), event.bytes.begin());
  Tell(std::move(event));
}

void WorkerState::AskForHandshake(PeerSlot peer, Session& session) {
  if (session.handshake_asked_ns != 0 &&
      now_ns < session.handshake_asked_ns + kAskForHandshakeEveryNs) {
    return;
  }
  session.handshake_asked_ns = now_ns;
  Event event;
  event.type = Event::Type::kNeedHandshake;
  event.peer = peer;
  Tell(std::move(event));
}

uint64_t WorkerState::RandomToken() {
  uint64_t token;
  randombytes_buf(&token, sizeof(token));
  return token;
}

}  // namespace braid
