#include "swarm.h"

#include <algorithm>

#include "identities.h"

namespace braid::swarm {
namespace {

constexpr uint32_t kLeaveAtOnce = 64;
constexpr DurationNs kLeavePauseNs = 5 * kMillisecondNs;  // a server's socket takes so many

}  // namespace

absl::Status Swarm::Open() {
  if (absl::Status status = outbox_.Open(options_.sockets); !status.ok()) return status;
  const Key server = ServerIdentity(options_.seed).public_key;
  clients_.reserve(options_.clients);
  for (uint32_t number = 0; number < options_.clients; ++number) {
    const Identity identity = ClientIdentity(options_.seed, number);
    auto keys = PeerKeys::Create(identity, server);
    if (!keys.ok()) return keys.status();
    clients_.push_back(std::make_unique<Client>(number, number % outbox_.sockets(), identity,
                                                *std::move(keys), options_.settings, outbox_,
                                                tally_));
  }
  scheduled_.assign(clients_.size(), UINT64_MAX);
  return absl::OkStatus();
}

// Whatever was done to a client, what is known of it here is brought up to date.
template <typename Action>
void Swarm::Touch(uint32_t number, Action&& action) {
  Client& client = *clients_[number];
  const bool was_handshaking = client.handshaking();
  const bool was_established = client.established();
  action(client);
  handshaking_ += client.handshaking() - was_handshaking;
  established_ += client.established() - was_established;
  const TimeNs due_ns = client.due_ns();
  if (due_ns < scheduled_[number]) {
    scheduled_[number] = due_ns;
    timers_.emplace(due_ns, number);
  }
  if (was_handshaking && !client.handshaking() && on_handshake_end) on_handshake_end(number);
}

void Swarm::Begin(uint32_t number) {
  Touch(number, [](Client& client) { client.BeginHandshake(MonotonicNowNs()); });
}

bool Swarm::SendInner(uint32_t number, Bytes packet, TimeNs now_ns) {
  return clients_[number]->SendInner(packet, now_ns);
}

void Swarm::Run(TimeNs until_ns) {
  do {
    outbox_.Flush();
    const TimeNs next_ns = timers_.empty() ? until_ns : std::min(until_ns, timers_.top().first);
    outbox_.Receive(next_ns,
                    [this](size_t socket, MutableBytes datagram) { Dispatch(socket, datagram); });
    RunTimers(MonotonicNowNs());
    outbox_.Flush();
  } while (MonotonicNowNs() < until_ns);
}

void Swarm::Dispatch(size_t socket, MutableBytes datagram) {
  const TimeNs now_ns = MonotonicNowNs();
  if (datagram.size() < kHeaderBytes) return;
  const uint32_t index = LoadBe32(datagram.data() + 4);
  if (index != 0) {
    const uint32_t number = Client::NumberOf(index);
    if (number >= size()) return;
    return Touch(number, [&](Client& client) { client.OnDatagram(datagram, now_ns); });
  }
  // A cookie names nobody: it is for one of those whom its socket serves.
  for (auto number = static_cast<uint32_t>(socket); number < size();
       number += static_cast<uint32_t>(outbox_.sockets())) {
    bool taken = false;
    Touch(number, [&](Client& client) {
      taken = client.handshaking() && client.OnDatagram(datagram, now_ns);
    });
    if (taken) return;
  }
}

void Swarm::RunTimers(TimeNs now_ns) {
  while (!timers_.empty() && timers_.top().first <= now_ns) {
    const auto [due_ns, number] = timers_.top();
    timers_.pop();
    if (scheduled_[number] != due_ns) continue;
    scheduled_[number] = UINT64_MAX;
    // What it had to do may have been put off since.
    Touch(number, [now_ns](Client& client) {
      if (client.due_ns() <= now_ns) client.OnTime(now_ns);
    });
  }
}

void Swarm::LeaveAll() {
  on_handshake_end = nullptr;
  for (uint32_t number = 0; number < size(); ++number) {
    Touch(number, [](Client& client) { client.Leave(MonotonicNowNs()); });
    if (number % kLeaveAtOnce == kLeaveAtOnce - 1) {
      Run(MonotonicNowNs() + kLeavePauseNs);
    }
  }
  outbox_.Flush();
}

}  // namespace braid::swarm
