// The configuration: its values, its defaults, and how it is loaded with every mistake named.
//
// etc/examples/ shows it whole. Loading looks at the shape only; the secrets
// are in files of their own, which ReadKeyFile() (key_file.h) reads.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "base/address.h"
#include "base/bytes.h"
#include "base/limits.h"
#include "base/token_bucket.h"
#include "bonding/bond_options.h"
#include "egress/upstream_choice.h"
#include "egress/warm_pool.h"
#include "fastpath/aead.h"
#include "fastpath/class_rules.h"
#include "fastpath/egress_rules.h"
#include "slowpath/log.h"
#include "slowpath/path_quota.h"

namespace braid {

enum class Role : uint8_t { kClient, kServer };  // "mode"

// Where a peer is reached. `address` is set when `host` is one; else `host` is a name to resolve.
struct HostPort {
  std::string host;
  uint16_t port = 0;
  IpAddress address;

  bool operator==(const HostPort&) const = default;
};

// What goes through a client's tunnel by this machine's routes, and what stays out.
struct RoutesConfig {
  bool everything = false;  // "default"
  std::vector<IpPrefix> include;
  bool exclude_lan = true;  // the networks that this machine is in
  std::vector<IpPrefix> exclude;

  bool operator==(const RoutesConfig&) const = default;
};

// What comes from `source` and leaves by `out` is given that device's own address.
struct NatConfig {
  IpPrefix source;
  std::string out;

  bool operator==(const NatConfig&) const = default;
};

struct DnsConfig {
  std::vector<IpAddress> servers;
  std::vector<std::string> domains;  // that are looked up there; none: all are

  bool operator==(const DnsConfig&) const = default;
};

struct NetworkConfig {
  std::string device = "braid0";
  std::vector<IpPrefix> addresses;  // with their host bits
  std::optional<int> mtu;           // nothing: what the smallest path carries
  std::optional<RoutesConfig> routes;
  std::vector<NatConfig> nat;
  std::optional<DnsConfig> dns;
  bool kill_switch = false;

  bool operator==(const NetworkConfig&) const = default;
};

struct SecurityConfig {
  std::string private_key_file;
  std::string state_dir = "/var/lib/braid";
  int rekey_after_s = 120;
  uint64_t rekey_after_packets = uint64_t{1} << 36;

  bool operator==(const SecurityConfig&) const = default;
};

// At most one of `address` and `interface` is set; the default path has neither, and leaves the
// choice to the kernel's routes.
struct PathConfig {
  std::string name;
  IpAddress address;
  std::string interface;
  std::optional<HostPort> endpoint;  // nothing: the peer's first one
  BondPathOptions bonding;
  std::optional<QuotaConfig> quota;

  bool operator==(const PathConfig&) const = default;
};

struct PeerConfig {
  std::string name;
  Key public_key{};
  std::string preshared_key_file;  // empty when there is none
  std::vector<HostPort> endpoints;
  std::vector<IpPrefix> allowed_ips;  // host bits cleared; no prefix belongs to two peers
  int keepalive_ms = 2000;            // 0 is off

  bool operator==(const PeerConfig&) const = default;
};

// Where the peer is reached along this path.
inline std::vector<HostPort> EndpointsOf(const PathConfig& path, const PeerConfig& peer) {
  return path.endpoint ? std::vector<HostPort>{*path.endpoint} : peer.endpoints;
}

struct TunnelConfig {
  std::vector<PathConfig> paths;  // of a client, at least one, or
  bool auto_paths = false;        // one for each interface with a default route
  std::vector<Endpoint> listen;   // of a server, at least one
  std::vector<PeerConfig> peers;
  int lanes = kDefaultLanes;
  BondOptions bonding;
  std::vector<ClassRule> class_rules;  // the first that matches counts
  std::vector<Cipher> ciphers = {Cipher::kAes256Gcm, Cipher::kChaCha20Poly1305};

  bool operator==(const TunnelConfig&) const = default;
};

struct TlsFiles {
  std::string certificate_file;  // PEM: the certificate, and those between it and the root
  std::string key_file;          // PEM, not encrypted, of its owner alone

  bool operator==(const TlsFiles&) const = default;
};

// Off the loopback it has both a token and TLS.
struct HttpConfig {
  Endpoint address;
  std::string token_file;  // empty: nothing can be changed by HTTP
  std::optional<TlsFiles> tls;
  std::vector<std::string> hosts;    // names and addresses that it goes by, in lower case
  std::vector<std::string> origins;  // whose pages may ask: "https://panel.example", in lower case

  bool operator==(const HttpConfig&) const = default;
};

struct ControlConfig {
  std::string socket = "/run/braid/braid.sock";
  std::optional<HttpConfig> http;

  bool operator==(const ControlConfig&) const = default;
};

struct PerformanceConfig {
  std::optional<int> workers;  // nothing: as ChooseWorkers() finds (worker_layout.h)
  // These two go by name to those who choose: "auto", or the back-end that is asked for.
  std::string io = "auto";    // "io_uring", "epoll"
  std::string aead = "auto";  // "ipsec-mb", "sodium"; see ChooseAeads()
  bool offloads = true;
  bool pin = true;
  uint16_t measure_port = 7799;  // for `braid bench peer` of the other end; 0 is off

  bool operator==(const PerformanceConfig&) const = default;
};

struct LogConfig {
  std::string level = "info";  // by name, as SetUpLog() takes it
  LogFormat format = LogFormat::kText;

  bool operator==(const LogConfig&) const = default;
};

// Of inner packets, each way by itself; nothing: as much as there is.
struct ThrottleLimits {
  std::optional<RateLimit> send;
  std::optional<RateLimit> receive;

  bool operator==(const ThrottleLimits&) const = default;
};

struct ThrottleConfig {
  ThrottleLimits total;
  std::map<std::string, ThrottleLimits> peers;  // by name

  bool operator==(const ThrottleConfig&) const = default;
};

// A SOCKS5 server.
struct UpstreamConfig {
  HostPort address;
  int weight = 1;
  std::string username;       // empty: none is told
  std::string password_file;  // absolute; with a username only

  bool operator==(const UpstreamConfig&) const = default;
};

// How an upstream is found to work: it is reached and greeted, and where there is something to
// connect to, that has to work as well.
struct UpstreamHealthConfig {
  int every_s = 30;
  int timeout_s = 5;
  std::optional<HostPort> connect;

  bool operator==(const UpstreamHealthConfig&) const = default;
};

struct UpstreamGroupConfig {
  std::string name;
  std::vector<UpstreamConfig> upstreams;
  UpstreamChoice::Options choice;
  std::optional<WarmPoolOptions> pool;  // nothing: each flow makes its own connection
  UpstreamHealthConfig health;
  bool pipelined = false;  // nothing waits for an answer that can be sent before it
  bool names = false;      // a flow to an address whose name is known asks for the name

  bool operator==(const UpstreamGroupConfig&) const = default;
};

// What programs ask of name servers past the tunnel.
struct EgressDnsConfig {
  std::vector<Endpoint> servers;  // are asked in place of whom a program asks; none: nobody is
  bool cache = true;
  int timeout_s = 5;

  bool operator==(const EgressDnsConfig&) const = default;
};

// What leaves past the tunnel, of what enters its device.
struct ProxyConfig {
  std::vector<EgressRule> rules;  // the first that fits counts
  std::vector<UpstreamGroupConfig> groups;
  EgressDnsConfig dns;
  int tcp_sessions = 20'000;  // at once, of each address family
  int udp_sessions = 4096;    // at once: inner sources, for each way out

  bool operator==(const ProxyConfig&) const = default;
};

// File names in it are absolute.
struct Config {
  Role role = Role::kClient;
  NetworkConfig network;
  SecurityConfig security;
  TunnelConfig tunnel;
  ThrottleConfig throttle;
  std::optional<ProxyConfig> proxy;  // nothing: all of it goes through the tunnel
  ControlConfig control;
  PerformanceConfig performance;
  LogConfig log;

  bool operator==(const Config&) const = default;
};

// What is wrong (or, as a warning, doubtful), and where.
struct Mistake {
  std::string pointer = {};  // RFC 6901; empty when it is not about one value
  std::string what = {};
  std::string variable = {};  // of the environment, when the value came from there
  int line = 0;               // of a mistake in the syntax, from 1
  int column = 0;

  bool operator==(const Mistake&) const = default;
};

// "FILE: /json/pointer: what is wrong", "FILE:line:column: what is wrong".
std::string DescribeMistake(const std::string& file, const Mistake& mistake);

// A key file that the configuration names, for those who check the files as well.
struct KeyFileUse {
  std::string pointer;
  std::string variable;
  std::string path;
};

// The same of the HTTP API: a token, or a private key with its certificate.
struct HttpFileUse {
  std::string pointer;
  std::string variable;
  std::string path;
  std::string certificate_path;  // empty: `path` is a token's
};

struct LoadedConfig {
  std::string file;              // that was read; empty for a text
  std::optional<Config> config;  // nothing when there is any mistake
  std::vector<Mistake> mistakes;
  std::vector<Mistake> warnings;
  std::vector<KeyFileUse> key_files;  // also when there are mistakes elsewhere
  std::vector<HttpFileUse> http_files;
  std::vector<KeyFileUse> password_files;
};

inline constexpr size_t kMaxConfigBytes = 16 << 20;  // kMaxPeers with a prefix each
inline constexpr size_t kMaxConfigMistakes = 200;    // that are told at once

// BRAID_SECTION__KEY=value overrides the file. BRAID_VECTORS and BRAID_TEST_… are no part of the
// configuration. In the order of their names, so that the same variables give the same result.
using Environment = std::map<std::string, std::string>;
Environment ProcessEnvironment();

enum class ConfigFormat : uint8_t { kJson, kYaml };

// Reads the file, whose extension tells the format: .json, .yaml or .yml. A path without one stands
// for the one file that is called so but for its extension.
[[nodiscard]] LoadedConfig LoadConfig(const std::string& path, const Environment& environment);

// The same for a text; `folder` is where relative file names begin.
[[nodiscard]] LoadedConfig ParseConfig(std::string_view text, ConfigFormat format,
                                       const std::string& folder, const Environment& environment);

// A path that somebody asks for while the tunnel runs: the object that stands in "paths" of the
// file, under the same rules. `device` is the tunnel's own.
[[nodiscard]] absl::StatusOr<PathConfig> ParsePath(const nlohmann::json& path,
                                                   const std::string& device);

// What somebody wants to change of a path while the tunnel runs: {"name", "weight", "rate_mbps",
// "standby"}, of which at least one besides the name; nothing where it is left as it is.
struct PathChange {
  std::string name;
  std::optional<double> weight;
  std::optional<uint64_t> fixed_bytes_per_s;  // 0: measured
  std::optional<bool> standby;

  void ApplyTo(BondPathOptions& options) const;
};
[[nodiscard]] absl::StatusOr<PathChange> ParsePathChange(const nlohmann::json& change);

}  // namespace braid
