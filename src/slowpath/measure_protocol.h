// What the two ends of a measurement through the tunnel say to each other, without any socket.
//
// Over TCP, one line of JSON each, at most kMaxMeasureLineBytes:
//
//   client, first connection   {"v":1,"type":"request","load":"tcp","up":true,"down":false,
//                               "seconds":5,"flows":1,"datagram_bytes":1200,"rate_mbps":0,
//                               "udp_port":40000}
//   server                     {"v":1,"type":"accepted","token":"…","udp_port":7799,
//                               "public_key":"…"}
//                         or   {"v":1,"type":"refused","code":"busy","message":"…"}
//   client, one connection     {"v":1,"type":"stream","token":"…","index":0}
//     for each TCP stream      and then nothing but payload, one way
//   server                     {"v":1,"type":"go"}             when every stream is there
//   server, often              {"v":1,"type":"report",…}       what it has received so far
//   client                     {"v":1,"type":"sent","datagrams":1000}   once it sends no more
//   server                     {"v":1,"type":"result",…}       last
//
// Over UDP, between the port that the request names and the one that the answer names: the header
// below and padding. A probe is answered at once with an echo of the same length, number and time.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>

#include "absl/status/statusor.h"
#include "base/bytes.h"
#include "base/clock.h"

namespace braid {

inline constexpr int kMeasureVersion = 1;
inline constexpr size_t kMaxMeasureLineBytes = 2048;  // without its newline
inline constexpr double kMinMeasureSeconds = 0.01;
inline constexpr int kMaxMeasureSeconds = 60;
inline constexpr int kMaxMeasureFlows = 16;  // in each direction
inline constexpr size_t kMaxMeasureDatagramBytes = 16384;
inline constexpr uint64_t kMaxMeasureRateMbps = 1'000'000;
// How long an end waits for the other to close a connection that has done its work.
inline constexpr DurationNs kGoodbyeWithinNs = 2 * kSecondNs;

enum class LoadKind : uint8_t { kIdle, kTcp, kUdp };
std::string_view LoadKindName(LoadKind kind);

// What is to be measured. Latency always is, by probes beside the load.
struct MeasurePlan {
  LoadKind load = LoadKind::kIdle;
  bool up = false;  // from client to server
  bool down = false;
  double seconds = 1;
  int flows = 1;                 // TCP streams in each direction
  size_t datagram_bytes = 1200;  // UDP payload
  double rate_mbps = 0;          // of UDP payload in each direction; 0: as fast as possible

  DurationNs duration_ns() const { return static_cast<DurationNs>(seconds * kSecondNs); }
  // The streams are numbered: those up first.
  int streams_up() const { return load == LoadKind::kTcp && up ? flows : 0; }
  int streams_down() const { return load == LoadKind::kTcp && down ? flows : 0; }
  int streams() const { return streams_up() + streams_down(); }

  bool operator==(const MeasurePlan&) const = default;
};

struct MeasureRequest {
  MeasurePlan plan;
  uint16_t udp_port = 0;
  bool operator==(const MeasureRequest&) const = default;
};

struct MeasureAccepted {
  std::string token;
  uint16_t udp_port = 0;
  std::string public_key;  // of the daemon that answers, in base 64
  bool operator==(const MeasureAccepted&) const = default;
};

struct MeasureRefused {
  std::string code;
  std::string message;
  bool operator==(const MeasureRefused&) const = default;
};

struct MeasureStream {
  std::string token;
  int index = 0;
  bool operator==(const MeasureStream&) const = default;
};

struct MeasureGo {
  bool operator==(const MeasureGo&) const = default;
};

struct MeasureSent {
  uint64_t datagrams = 0;
  bool operator==(const MeasureSent&) const = default;
};

// What one end has sent and received since it began.
struct EndReport {
  DurationNs elapsed_ns = 0;
  uint64_t tcp_rx_bytes = 0;
  DurationNs tcp_rx_ns = 0;  // until the last byte came
  uint64_t datagrams_sent = 0;
  uint64_t datagrams_received = 0;
  uint64_t datagrams_lost = 0;
  uint64_t datagrams_reordered = 0;
  uint64_t datagrams_doubled = 0;
  DurationNs datagrams_rx_ns = 0;
  bool is_last = false;
  bool operator==(const EndReport&) const = default;
};

using MeasureLine = std::variant<MeasureRequest, MeasureAccepted, MeasureRefused, MeasureStream,
                                 MeasureGo, MeasureSent, EndReport>;

// Everything in range, or InvalidArgument that says what is not.
absl::StatusOr<MeasureLine> ParseMeasureLine(std::string_view line);
// With its newline.
std::string RenderMeasureLine(const MeasureLine& line);

// In front of every datagram of a measurement.
struct MeasureDatagram {
  enum class Kind : uint8_t { kLoad = 1, kProbe = 2, kEcho = 3 };
  Kind kind = Kind::kLoad;
  uint64_t sequence = 0;
  TimeNs sent_ns = 0;  // by the sender's own clock

  bool operator==(const MeasureDatagram&) const = default;
};
inline constexpr size_t kMeasureDatagramBytes = 24;

void WriteMeasureDatagram(const MeasureDatagram& datagram, uint8_t* to);
std::optional<MeasureDatagram> ReadMeasureDatagram(Bytes from);

}  // namespace braid
