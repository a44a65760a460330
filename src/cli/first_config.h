// The configurations that `braid init` begins a tunnel with, as text: a server's and those of its
// clients. No I/O.
//
// Inside, the server is host 1 of both networks and a client has the same number in both.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/address.h"
#include "base/bytes.h"
#include "slowpath/config.h"
#include "slowpath/net_snapshot.h"

namespace braid {

inline constexpr uint16_t kDefaultPort = 7700;
inline constexpr char kServerKeyFile[] = "server.key";
inline constexpr char kClientKeyFile[] = "client.key";
inline constexpr char kClientPresharedKeyFile[] = "client.psk";

// The networks inside the tunnel. Host bits are cleared.
struct InnerNetworks {
  IpPrefix v4;
  std::optional<IpPrefix> v6;

  // Of one host, as the device has it: "10.77.0.2/24". `number` fits the network.
  std::vector<IpPrefix> AddressesOf(uint32_t number) const;
};

// 10.77.0.0/24 and fd77::/64, or the next ones that overlap none of `taken`.
absl::StatusOr<InnerNetworks> ChooseInnerNetworks(const std::vector<IpPrefix>& taken, bool has_v6);

// The address by which others may reach this machine: one of a device with a default route, a
// public one before a private one, IPv4 before IPv6.
struct OwnAddress {
  IpAddress address;
  std::string device;
  bool is_public = false;
};
std::optional<OwnAddress> FindOwnAddress(const NetSnapshot& network);
bool IsPublic(const IpAddress& address);

// The name of a client is one of a file, too.
[[nodiscard]] absl::Status CheckClientName(std::string_view name);

struct FirstServer {
  InnerNetworks inner;
  uint16_t port = kDefaultPort;  // to listen on
  bool listens_v6 = true;
  std::string nat_device;  // clients go into the internet through it; empty: they do not
};

struct FirstClient {
  std::string name;
  uint32_t number = 2;
  Key public_key{};
  InnerNetworks inner;
  Key server_public_key{};
  std::vector<std::string> endpoints;  // of the server
  bool auto_paths = false;             // one for each interface with a default route
  bool default_route = false;
  std::vector<std::string> dns_servers;
  bool kill_switch = false;
};

std::string PresharedKeyFileOf(const std::string& client_name);  // at the server

std::string ServerText(const FirstServer& server, const FirstClient& client);
std::string ClientText(const FirstClient& client);

// The networks of a server that there is already, and the first number that nobody has in them.
absl::StatusOr<InnerNetworks> InnerNetworksOf(const Config& server);
absl::StatusOr<uint32_t> FreeNumber(const Config& server, const InnerNetworks& inner);

// A server's configuration with one more peer behind the others, and all else as it was. An error
// where the list is not written so that it can be added to. `text` has no mistakes.
absl::StatusOr<std::string> AddClient(const std::string& text, const FirstClient& client);
// The same peer on one line, for people to add it, in either language.
std::string PeerJson(const FirstClient& client);

}  // namespace braid
