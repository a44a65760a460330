#include "slowpath/nft.h"

#include <linux/capability.h>
#include <linux/netlink.h>
#include <nftables/libnftables.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <tuple>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "base/c_pointer.h"
#include "io/own_mark.h"
#include "io/unique_fd.h"

namespace braid {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kSourceNatPriority = 100;
constexpr int kFilterPriority = 0;

// Of ICMPv6: what a link needs to work at all.
constexpr int kNeighbourTypes[] = {133, 135, 136};  // router and neighbour solicitation, answers
constexpr int kMulticastReportTypes[] = {131, 132, 143};

struct NftResult {
  int code = 0;
  std::string error;
  std::string output = {};
};

// libnftables ends the whole process where it gets no socket.
bool HasSocket() {
  return static_cast<bool>(
      UniqueFd(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_NETFILTER)));
}

// It says so on this process's own standard error where it may not ask.
bool MayAsk() {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[2] = {};
  return syscall(SYS_capget, &header, data) == 0 &&
         (data[CAP_TO_INDEX(CAP_NET_ADMIN)].effective & CAP_TO_MASK(CAP_NET_ADMIN)) != 0;
}

NftResult Run(const Json& commands) {
  if (!MayAsk()) return {-1, "Operation not permitted: CAP_NET_ADMIN is needed"};
  if (!HasSocket()) return {-1, "this kernel has no nftables, or no file descriptor is left"};
  const CPointer<nft_ctx, nft_ctx_free> context(nft_ctx_new(NFT_CTX_DEFAULT));
  if (context == nullptr) return {-1, "no memory"};
  nft_ctx_output_set_flags(context.get(), NFT_CTX_OUTPUT_JSON);
  nft_ctx_buffer_output(context.get());
  nft_ctx_buffer_error(context.get());
  const std::string text =
      Json{{"nftables", commands}}.dump(-1, ' ', false, Json::error_handler_t::replace);
  const int code = nft_run_cmd_from_buffer(context.get(), text.c_str());
  std::string error = nft_ctx_get_error_buffer(context.get());
  // "Error: Could not process rule: File exists" and the command beneath it.
  error = error.substr(0, error.find('\n'));
  return {code, std::string(absl::StripAsciiWhitespace(error)),
          nft_ctx_get_output_buffer(context.get())};
}

Json NameOf(const NftTable& table) {
  return {{"table", {{"family", table.family}, {"name", table.name}}}};
}

Json Match(Json left, Json right) {
  return {{"match", {{"op", "=="}, {"left", std::move(left)}, {"right", std::move(right)}}}};
}
Json Meta(const char* key) { return {{"meta", {{"key", key}}}}; }
Json Payload(const char* protocol, const char* field) {
  return {{"payload", {{"protocol", protocol}, {"field", field}}}};
}
Json SetOf(Json members) { return {{"set", std::move(members)}}; }
const Json kAccept = {{"accept", nullptr}};
const Json kDrop = {{"drop", nullptr}};
const Json kIsAnswer = {{"match",
                         {{"op", "in"},
                          {"left", {{"ct", {{"key", "state"}}}}},
                          {"right", Json::array({"established", "related"})}}}};

// Gathers the commands that fill a table.
class TableWriter {
 public:
  explicit TableWriter(NftTable table) : table_(std::move(table)) {}

  void Chain(const char* name, const char* type, int priority, const char* policy) {
    commands_.push_back({{"add",
                          {{"chain",
                            {{"family", table_.family},
                             {"table", table_.name},
                             {"name", name},
                             {"type", type},
                             {"hook", name},
                             {"prio", priority},
                             {"policy", policy}}}}}});
  }
  // To the end of the chain.
  void Rule(const char* chain, Json expressions) {
    commands_.push_back({{"add",
                          {{"rule",
                            {{"family", table_.family},
                             {"table", table_.name},
                             {"chain", chain},
                             {"expr", std::move(expressions)}}}}}});
  }
  NftTable Take() {
    // A name that is no text matches nothing: nftables itself takes none.
    table_.contents = commands_.dump(-1, ' ', false, Json::error_handler_t::replace);
    return std::move(table_);
  }

 private:
  NftTable table_;
  Json commands_ = Json::array();
};

Json PrefixOf(const IpPrefix& prefix) {
  const IpPrefix network = prefix.Network();
  return {{"prefix", {{"addr", network.address.ToString()}, {"len", network.length}}}};
}

Json MatchesOf(const NatConfig& nat) {
  const char* protocol = nat.source.address.is_v4() ? "ip" : "ip6";
  return Json::array(
      {Match(Payload(protocol, "saddr"), PrefixOf(nat.source)), Match(Meta("oifname"), nat.out)});
}

Json DevicesOf(const std::vector<std::string>& devices) {
  if (devices.size() == 1) return devices[0];
  return SetOf(Json(devices));
}

// What the kernel numbers anew whenever it is made again.
void ForgetHandles(Json& json) {
  if (json.is_object()) json.erase("handle");
  if (!json.is_structured()) return;
  for (Json& member : json) ForgetHandles(member);
}

// What comes before the table's contents, and those, are one transaction.
absl::Status Fill(const NftTable& table, Json commands) {
  const Json contents = Json::parse(table.contents, nullptr, false);
  if (!contents.is_array()) return absl::DataLossError(Describe(table) + " has no contents");
  for (const Json& command : contents) commands.push_back(command);
  const NftResult result = Run(commands);
  if (result.code == 0) return absl::OkStatus();
  const std::string what = absl::StrCat("cannot make ", Describe(table), ": ", result.error);
  if ((result.error.find("File exists") != std::string::npos))
    return absl::AlreadyExistsError(what);
  return absl::UnavailableError(what);
}

}  // namespace

absl::StatusOr<bool> HasTable(const NftTable& table) {
  const NftResult result = Run(Json::array({{{"list", {{"tables", {{"family", table.family}}}}}}}));
  if (result.code != 0) {
    return absl::UnavailableError(absl::StrCat("cannot list nftables' tables: ", result.error));
  }
  const Json listed = Json::parse(result.output, nullptr, false);
  const auto objects = listed.is_object() ? listed.find("nftables") : listed.end();
  if (!listed.is_object() || objects == listed.end()) return false;
  return std::any_of(objects->begin(), objects->end(), [&table](const Json& object) {
    const auto found = object.find("table");
    return found != object.end() && found->value("name", "") == table.name;
  });
}

absl::StatusOr<std::string> ShowTable(const NftTable& table) {
  const NftResult result = Run(Json::array({{{"list", NameOf(table)}}}));
  if (result.code != 0) {
    const auto is_there = HasTable(table);
    if (!is_there.ok()) return is_there.status();
    if (!*is_there) return "";
    return absl::UnavailableError(
        absl::StrCat("cannot read ", Describe(table), ": ", result.error));
  }
  Json listed = Json::parse(result.output, nullptr, false);
  if (!listed.is_object() || !listed.contains("nftables")) {
    return absl::DataLossError(absl::StrCat("cannot read ", Describe(table)));
  }
  ForgetHandles(listed);
  return listed.dump(-1, ' ', false, Json::error_handler_t::replace);
}

absl::Status MakeTable(const NftTable& table) {
  return Fill(table, Json::array({{{"create", NameOf(table)}}}));
}

// Adding comes first, so that there is one to be deleted.
absl::Status ReplaceTable(const NftTable& table) {
  return Fill(table, Json::array({{{"add", NameOf(table)}},
                                  {{"delete", NameOf(table)}},
                                  {{"add", NameOf(table)}}}));
}

// Adding comes first, so that there is one to be deleted, in the same transaction.
absl::Status RemoveTable(const NftTable& table) {
  const NftResult result =
      Run(Json::array({{{"add", NameOf(table)}}, {{"delete", NameOf(table)}}}));
  if (result.code == 0) return absl::OkStatus();
  return absl::UnavailableError(
      absl::StrCat("cannot remove ", Describe(table), ": ", result.error));
}

NftTable NatTable(const std::string& tunnel_device, const std::vector<NatConfig>& nat,
                  const NatGuard& guard) {
  TableWriter table({"inet", std::string(kOwnTablePrefix) + tunnel_device, ""});
  table.Chain("postrouting", "nat", kSourceNatPriority, "accept");
  for (const NatConfig& one : nat) {
    Json rule = MatchesOf(one);
    rule.push_back({{"masquerade", nullptr}});
    table.Rule("postrouting", std::move(rule));
  }
  if (guard.guarded.empty() && !guard.guards_v6) return table.Take();
  table.Chain("forward", "filter", kFilterPriority, "accept");
  table.Rule("forward", Json::array({kIsAnswer, kAccept}));
  for (const NatConfig& one : nat) {
    Json rule = MatchesOf(one);
    rule.push_back(kAccept);
    table.Rule("forward", std::move(rule));
  }
  if (!guard.guarded.empty()) {
    table.Rule("forward", Json::array({Match(Meta("nfproto"), "ipv4"),
                                       Match(Meta("iifname"), DevicesOf(guard.guarded)), kDrop}));
  }
  if (guard.guards_v6) {
    table.Rule("forward", Json::array({Match(Meta("nfproto"), "ipv6"), kDrop}));
  }
  return table.Take();
}

NftTable KillSwitchTable(const std::vector<std::string>& tunnel_devices) {
  TableWriter table({"inet", std::string(kOwnTablePrefix) + "kill_switch", ""});
  table.Chain("output", "filter", kFilterPriority, "drop");
  table.Rule("output", Json::array({Match(Meta("oifname"), "lo"), kAccept}));
  if (!tunnel_devices.empty()) {
    table.Rule("output", Json::array({Match(Meta("oifname"), DevicesOf(tunnel_devices)), kAccept}));
  }
  table.Rule("output", Json::array({Match(Meta("mark"), kOwnMark), kAccept}));
  for (const auto& [protocol, from, to] :
       {std::tuple{"ipv4", 68, 67}, std::tuple{"ipv6", 546, 547}}) {
    table.Rule("output",
               Json::array({Match(Meta("nfproto"), protocol), Match(Payload("udp", "sport"), from),
                            Match(Payload("udp", "dport"), to), kAccept}));
  }
  Json types = Json(kNeighbourTypes);
  for (const int type : kMulticastReportTypes) types.push_back(type);
  table.Rule("output", Json::array({Match(Payload("icmpv6", "type"), SetOf(types)), kAccept}));
  // What hosts behind this machine send leaves through the tunnel or not at all.
  table.Chain("forward", "filter", kFilterPriority, "drop");
  if (tunnel_devices.empty()) return table.Take();
  table.Rule("forward", Json::array({Match(Meta("oifname"), DevicesOf(tunnel_devices)), kAccept}));
  table.Rule("forward",
             Json::array({Match(Meta("iifname"), DevicesOf(tunnel_devices)), kIsAnswer, kAccept}));
  return table.Take();
}

}  // namespace braid
