#include "slowpath/handshake_probe.h"

#include <errno.h>
#include <poll.h>
#include <sys/socket.h>

#include <array>
#include <string>

#include "absl/status/status.h"
#include "base/limits.h"
#include "io/udp.h"
#include "slowpath/cookie.h"

namespace braid {
namespace {

constexpr int kHandshakeTries = 3;
constexpr int kHandshakeTryMs = 700;
constexpr uint8_t kPathId = 0;
constexpr uint16_t kOfferedMtu = kMinMtu;

// Only what comes from there is received, and the network's refusals are told.
absl::StatusOr<UdpSocket> Connect(const HandshakeQuestion& question) {
  UdpSocketOptions options;
  options.address =
      question.local.is_set() ? question.local : IpAddress::Any(question.remote.address.family);
  options.interface = question.interface;
  options.coalesce = false;
  auto socket = OpenUdp(options);
  if (!socket.ok()) return socket.status();
  sockaddr_storage address;
  const socklen_t length = question.remote.To(address);
  if (connect(socket->fd.get(), reinterpret_cast<sockaddr*>(&address), length) != 0) {
    const int error = errno;
    return absl::ErrnoToStatus(error, "no way to " + question.remote.ToString());
  }
  return socket;
}

absl::Status SendError(const HandshakeQuestion& question, int error) {
  if (error == ECONNREFUSED) {
    return absl::UnavailableError("nothing listens on UDP " + question.remote.ToString());
  }
  return absl::ErrnoToStatus(error, "cannot send to " + question.remote.ToString());
}

class Attempt {
 public:
  Attempt(const HandshakeQuestion& question, const PeerKeys& peer, int fd)
      : question_(question), stamper_(peer.public_key), fd_(fd) {}

  // The answer to one initiation; DeadlineExceeded without one.
  absl::StatusOr<HandshakeAnswer> Try(const Identity& identity, const PeerKeys& peer,
                                      uint64_t counter);

 private:
  absl::Status Wait(TimeNs until_ns) const;

  const HandshakeQuestion& question_;
  MacStamper stamper_;
  const int fd_;
};

absl::Status Attempt::Wait(TimeNs until_ns) const {
  const int64_t left_ms =
      (static_cast<int64_t>(until_ns) - static_cast<int64_t>(MonotonicNowNs())) /
      static_cast<int64_t>(kMillisecondNs);
  pollfd event{fd_, POLLIN, 0};
  if (left_ms > 0 && poll(&event, 1, static_cast<int>(left_ms)) > 0) return absl::OkStatus();
  return absl::DeadlineExceededError("no answer from " + question_.remote.ToString());
}

absl::StatusOr<HandshakeAnswer> Attempt::Try(const Identity& identity, const PeerKeys& peer,
                                             uint64_t counter) {
  auto handshake = InitiatorHandshake::Create(identity, peer);
  if (!handshake.ok()) return handshake.status();
  const InitiationPayload payload{.sender_index = 1,
                                  .counter = counter,
                                  .ciphers = kOfferChaCha20Poly1305 | kOfferAes256Gcm,
                                  .lanes = kDefaultLanes,
                                  .mtu = kOfferedMtu};
  const TimeNs sent_ns = MonotonicNowNs();
  std::array<uint8_t, kInitiationBytes> initiation;
  const auto bytes = handshake->Write(kPathId, payload, stamper_, sent_ns, initiation);
  if (!bytes.ok()) return bytes.status();
  if (send(fd_, initiation.data(), *bytes, MSG_NOSIGNAL) < 0) return SendError(question_, errno);
  while (true) {
    const absl::Status waited = Wait(sent_ns + kHandshakeTryMs * kMillisecondNs);
    if (!waited.ok()) return waited;
    std::array<uint8_t, kMaxHandshakeBytes> datagram;
    const ssize_t received = recv(fd_, datagram.data(), datagram.size(), MSG_DONTWAIT);
    if (received < 0 && (errno == EAGAIN || errno == EINTR)) continue;
    if (received < 0) return SendError(question_, errno);
    const Bytes answer(datagram.data(), static_cast<size_t>(received));
    const double rtt_ms =
        static_cast<double>(MonotonicNowNs() - sent_ns) / static_cast<double>(kMillisecondNs);
    if (handshake->Read(answer).ok()) return HandshakeAnswer{.rtt_ms = rtt_ms};
    // Whoever holds a cookie is answered at the next try.
    if (stamper_.ConsumeCookie(answer, MonotonicNowNs()).ok()) {
      return HandshakeAnswer{.rtt_ms = rtt_ms, .busy = true};
    }
  }
}

}  // namespace

absl::StatusOr<HandshakeAnswer> AskForHandshake(const HandshakeQuestion& question,
                                                const Identity& identity, const PeerKeys& peer,
                                                absl::FunctionRef<uint64_t()> next_counter) {
  const auto socket = Connect(question);
  if (!socket.ok()) return socket.status();
  Attempt attempt(question, peer, socket->fd.get());
  absl::StatusOr<HandshakeAnswer> answer = absl::UnknownError("");
  for (int i = 0; i < kHandshakeTries; ++i) {
    answer = attempt.Try(identity, peer, next_counter());
    const bool is_final = answer.ok() ? !answer->busy : !absl::IsDeadlineExceeded(answer.status());
    if (is_final) break;
  }
  return answer;
}

}  // namespace braid
