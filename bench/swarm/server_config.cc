#include "server_config.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/address.h"
#include "identities.h"
#include "io/unique_fd.h"
#include "slowpath/key_file.h"

namespace braid::swarm {
namespace {

using Json = nlohmann::ordered_json;

absl::Status WriteFile(const std::string& file, mode_t mode, const std::string& text) {
  const UniqueFd fd(open(file.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode));
  if (!fd) return absl::ErrnoToStatus(errno, "cannot write to " + file);
  for (size_t done = 0; done < text.size();) {
    const ssize_t bytes = write(fd.get(), text.data() + done, text.size() - done);
    if (bytes < 0) return absl::ErrnoToStatus(errno, "cannot write to " + file);
    done += static_cast<size_t>(bytes);
  }
  return absl::OkStatus();
}

Json PeerEntry(const std::string& name, const std::string& public_key, const std::string& owned) {
  Json peer;
  peer["name"] = name;
  peer["public_key"] = public_key;
  peer["allowed_ips"] = {owned};
  return peer;
}

}  // namespace

absl::Status WriteServerConfig(const ServerConfigOptions& options) {
  const auto listen = Endpoint::Parse(options.listen);
  if (!listen) {
    return absl::InvalidArgumentError("--listen: \"" + options.listen +
                                      "\" is no address with a port, such as 0.0.0.0:7700");
  }
  const std::string key_file = options.file + ".key";
  Json peers = Json::array();
  for (size_t i = 0; i < options.extra_peers.size(); ++i) {
    const std::string& extra = options.extra_peers[i];
    // A key ends in "=" itself.
    const size_t equals = extra.rfind('=');
    if (equals == extra.npos || !DecodeKey(extra.substr(0, equals)) ||
        !IpPrefix::Parse(extra.substr(equals + 1))) {
      return absl::InvalidArgumentError("--extra-peer: \"" + extra +
                                        "\" is no public key, \"=\" and prefix");
    }
    peers.push_back(
        PeerEntry("extra" + std::to_string(i), extra.substr(0, equals), extra.substr(equals + 1)));
  }
  for (uint32_t number = 0; number < options.clients; ++number) {
    peers.push_back(PeerEntry("swarm" + std::to_string(number),
                              EncodeKey(ClientIdentity(options.seed, number).public_key),
                              V4(ClientInner(number)).ToString()));
  }
  Json config;
  config["mode"] = "server";
  config["network"]["addresses"] = {V4(kServerInner).ToString() + "/" +
                                    std::to_string(kInnerNetBits)};
  config["security"]["private_key_file"] = std::filesystem::path(key_file).filename().string();
  config["tunnel"]["listen"] = {{{"address", listen->address.ToString()}, {"port", listen->port}}};
  config["tunnel"]["peers"] = std::move(peers);
  std::string key = EncodeKey(ServerIdentity(options.seed).private_key) + "\n";
  absl::Status written = WriteFile(key_file, 0600, key);
  Wipe(key);
  if (!written.ok()) return written;
  return WriteFile(options.file, 0644, config.dump() + "\n");
}

}  // namespace braid::swarm
