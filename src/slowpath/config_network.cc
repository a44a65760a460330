#include "slowpath/config_network.h"

#include <string>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "slowpath/config_values.h"
#include "slowpath/network_plan.h"

namespace braid {
namespace {

constexpr size_t kMaxRoutes = 1024;
constexpr size_t kMaxNat = 64;
constexpr size_t kMaxDnsServers = 8;
constexpr size_t kMaxDnsDomains = 64;
constexpr size_t kMaxDomainBytes = 253;
constexpr size_t kMaxLabelBytes = 63;

void ReadRoutes(const Node& node, std::optional<RoutesConfig>& to) {
  const Section routes(node, {"default", "include", "exclude"});
  if (!node.value().is_object()) return;
  to.emplace();
  routes.Boolean("default", to->everything);
  if (const auto list = routes.Find("include")) {
    for (const Node& one : list->List(0, kMaxRoutes)) {
      const auto prefix = ReadNetworkPrefix(one);
      if (!prefix) continue;
      if (prefix->length == 0) one.Wrong("is everything: write \"default\": true instead");
      to->include.push_back(*prefix);
    }
  }
  if (const auto list = routes.Find("exclude")) {
    to->exclude_lan = false;
    for (const Node& one : list->List(0, kMaxRoutes)) {
      if (one.Is("lan")) {
        to->exclude_lan = true;
      } else if (const auto prefix = ReadNetworkPrefix(one)) {
        to->exclude.push_back(*prefix);
      }
    }
  }
}

void ReadNat(const Node& list, const std::string& device, std::vector<NatConfig>& to) {
  for (const Node& node : list.List(0, kMaxNat)) {
    const Section nat(node, {"source", "out"});
    if (!node.value().is_object()) continue;
    const auto source = nat.Need("source", "the network whose addresses are hidden");
    const auto out = nat.Need("out", "the device that it leaves by");
    if (!source || !out) continue;
    const auto prefix = ReadNetworkPrefix(*source);
    const auto name = ReadInterfaceName(*out);
    if (!prefix || !name) continue;
    if (name->find_first_of("*@$") != name->npos) {
      out->Wrong("has a letter that means something else to nftables: rename the device");
      continue;
    }
    if (*name == device && prefix->length == 0) {
      source->Warn("is everything, also what this machine itself sends into the tunnel");
    }
    to.push_back({*prefix, *name});
  }
}

// As resolvers take them: letters, digits, hyphens, dots between; in lower case, without a dot at
// the end.
std::optional<std::string> ReadDomain(const Node& node) {
  const auto text = node.Text();
  if (!text) return std::nullopt;
  std::string domain = absl::AsciiStrToLower(*text);
  if (!domain.empty() && domain.back() == '.') domain.pop_back();
  size_t label_bytes = 0;
  bool good = !domain.empty() && domain.size() <= kMaxDomainBytes;
  for (const char letter : domain) {
    const bool ends_label = letter == '.';
    good &= ends_label ? label_bytes != 0
                       : absl::ascii_isalnum(static_cast<unsigned char>(letter)) || letter == '-' ||
                             letter == '_';
    label_bytes = ends_label ? 0 : label_bytes + 1;
    good &= label_bytes <= kMaxLabelBytes;
  }
  if (good && label_bytes != 0) return domain;
  node.Wrong("must be a domain such as \"corp.example\"");
  return std::nullopt;
}

void ReadDns(const Node& node, std::optional<DnsConfig>& to) {
  const Section dns(node, {"servers", "domains"});
  if (!node.value().is_object()) return;
  to.emplace();
  if (const auto list = dns.Need("servers", "a list such as [\"10.77.0.1\"]")) {
    for (const Node& one : list->List(1, kMaxDnsServers)) {
      if (const auto address = ReadAddress(one, Unspecified::kRefused)) {
        to->servers.push_back(*address);
      }
    }
  }
  if (const auto list = dns.Find("domains")) {
    for (const Node& one : list->List(0, kMaxDnsDomains)) {
      if (const auto domain = ReadDomain(one)) to->domains.push_back(*domain);
    }
  }
}

}  // namespace

void ReadHostNetwork(const Section& network, std::optional<Role> role, NetworkConfig& to) {
  const auto routes = network.Find("routes");
  const auto dns = network.Find("dns");
  const auto kill_switch = network.Find("kill_switch");
  if (role == Role::kServer) {
    for (const auto& of_client : {routes, dns, kill_switch}) {
      if (of_client) of_client->Wrong("belongs to a client; remove it");
    }
  } else {
    if (routes) ReadRoutes(*routes, to.routes);
    if (dns) ReadDns(*dns, to.dns);
    network.Boolean("kill_switch", to.kill_switch);
  }
  if (const auto nat = network.Find("nat")) ReadNat(*nat, to.device, to.nat);
}

void CheckHostNetwork(const Config& config, Report& report) {
  const std::optional<RoutesConfig>& routes = config.network.routes;
  if (config.network.device.find_first_of("*@$") != std::string::npos &&
      (config.network.kill_switch || !config.network.nat.empty())) {
    report.Wrong("/network/device", "has a letter that means something else to nftables");
  }
  if (config.network.device == "kill_switch" && !config.network.nat.empty()) {
    report.Wrong("/network/device", "is the name of the kill switch's own table; choose another");
  }
  if (!routes || config.tunnel.peers.empty()) return;
  if (config.network.kill_switch && !routes->exclude.empty()) {
    report.Warn("/network/routes/exclude", "names what \"kill_switch\" keeps from leaving");
  }
  const bool has_v4 = IsCarried(config, *IpPrefix::Parse("0.0.0.0/0"));
  const bool has_v6 = IsCarried(config, *IpPrefix::Parse("::/0"));
  if (routes->everything && !has_v4 && !has_v6) {
    report.Wrong("/network/routes/default",
                 "needs a peer that carries everything: add \"0.0.0.0/0\" or \"::/0\" to its "
                 "allowed_ips");
  } else if (routes->everything && !(has_v4 && has_v6)) {
    report.Warn("/network/routes/default", absl::StrCat(has_v4 ? "IPv6" : "IPv4",
                                                        " stays outside of the tunnel, since no "
                                                        "peer's allowed_ips have \"",
                                                        has_v4 ? "::/0" : "0.0.0.0/0",
                                                        "\" in them; \"kill_switch\" keeps it in"));
  }
  for (size_t i = 0; i < routes->include.size(); ++i) {
    if (IsCarried(config, routes->include[i])) continue;
    report.Wrong(absl::StrCat("/network/routes/include/", i),
                 "is in no peer's allowed_ips, so the tunnel would drop it");
  }
}

}  // namespace braid
