// What the measurements of `braid bench` came to, as plain values, and their two printed forms: a
// page for people and JSON for programs.
#pragma once

#include <cstddef>
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "slowpath/measure_client.h"

namespace braid {

// `braid bench crypto`

struct CryptoFigure {
  std::string cipher;
  std::string backend;
  size_t bytes = 0;  // of plaintext in each packet
  int threads = 0;   // each on a core of its own
  // Of one core, the mean of all.
  double seal_ns = 0;
  double open_ns = 0;
  // Of all cores together.
  double seal_bytes_per_s = 0;
  double open_bytes_per_s = 0;
};

struct CryptoChoice {
  std::string cipher;
  std::string backend;
  std::string why;
};

struct CryptoReport {
  int cpus = 0;
  std::vector<CryptoChoice> choices;  // what performance.aead "auto" takes
  std::vector<CryptoFigure> figures;
};

// `braid bench device`

struct TunFigure {
  std::string way;  // "read", "write"
  std::string offload;
  std::string backend;
  size_t packet_bytes = 0;
  double packets_per_s = 0;  // or super-packets
  double bytes_per_s = 0;
  std::string refused;  // why there is no figure; else empty
};

struct UdpFigure {
  std::string link;  // "loopback", "veth"
  std::string mode;
  std::string backend;
  double sent_per_s = 0;  // datagrams
  double received_per_s = 0;
  double bytes_per_s = 0;  // received
  std::string refused;
};

struct DeviceReport {
  std::string kernel;
  size_t datagram_bytes = 0;
  int max_gso_datagrams = 0;
  std::vector<std::string> notes;  // what the kernel refuses, and what that means
  std::vector<TunFigure> tun;
  std::vector<UdpFigure> udp;
};

// `braid bench tunnel`

// One figure, measured in every round through the tunnel and beside it.
struct TunnelFigure {
  std::string name;
  std::string unit;
  std::vector<double> tunnel;
  std::vector<double> bare;
};

struct TunnelReport {
  std::string cipher;
  std::string io;
  std::string aead;
  int workers = 0;
  int mtu = 0;
  int rounds = 0;
  int seconds = 0;
  std::vector<TunnelFigure> figures;
};

struct Spread {
  double median = 0;
  double least = 0;
  double most = 0;
};
Spread SpreadOf(std::vector<double> samples);
// Round by round, since the machine's speed drifts from one to the next.
Spread RatioOf(const TunnelFigure& figure);

// `braid bench peer`

struct PeerMeasurement {
  std::string name;
  MeasureResult result;
  bool interrupted = false;  // it was ended before its time; the result's plan tells when
};

struct PeerReport {
  std::string peer;
  std::string address;
  std::string device;
  std::vector<PeerMeasurement> measurements;
  std::string error;  // why it ended early; empty: it did not
};

std::string RenderReport(const CryptoReport& report);
std::string RenderReport(const DeviceReport& report);
std::string RenderReport(const TunnelReport& report);
std::string RenderReport(const PeerReport& report);
// One line of a measurement that goes on, without a newline.
std::string RenderProgress(const std::string& name, const MeasurePlan& plan,
                           const MeasureProgress& progress);

nlohmann::ordered_json DescribeReport(const CryptoReport& report);
nlohmann::ordered_json DescribeReport(const DeviceReport& report);
nlohmann::ordered_json DescribeReport(const TunnelReport& report);
nlohmann::ordered_json DescribeReport(const PeerReport& report);

}  // namespace braid
