#include "fastpath/egress_rules.h"

#include <algorithm>
#include <bit>
#include <map>
#include <utility>

namespace braid {

// There are few different sets, however many prefixes and ports lead to them: each is kept once.
class EgressRules::Compiler {
 public:
  explicit Compiler(EgressRules& to) : to_(to), rules_(to.rules_) {}

  void Compile() {
    to_.other_destinations_ = CompileAddresses(&EgressRule::prefixes, to_.destinations_);
    to_.other_sources_ = CompileAddresses(&EgressRule::sources, to_.sources_);
    CompilePorts();
    CompileProtocols();
    CompileNames();
  }

 private:
  SetIndex Keep(const Set& set) {
    const auto [kept, is_new] = kept_.try_emplace(set, static_cast<SetIndex>(to_.sets_.size()));
    if (is_new) to_.sets_.push_back(set);
    return kept->second;
  }

  // From short prefixes to long ones: what satisfies one satisfies what contains it, too. Returns
  // the set of what is in none of them.
  SetIndex CompileAddresses(std::vector<IpPrefix> EgressRule::*of, PrefixMap<SetIndex>& to) {
    Set any;
    std::map<std::pair<int, IpPrefix>, Set> by_length;
    for (size_t rule = 0; rule < rules_.size(); ++rule) {
      const std::vector<IpPrefix>& prefixes = rules_[rule].*of;
      if (prefixes.empty()) any.Add(rule);
      for (const IpPrefix& prefix : prefixes) {
        by_length[{prefix.length, prefix.Network()}].Add(rule);
      }
    }
    const SetIndex others = Keep(any);
    for (auto& [key, set] : by_length) {
      const IpPrefix& prefix = key.second;
      const SetIndex* within = to.Find(prefix.address);
      set.Add(to_.sets_[within == nullptr ? others : *within]);
      to.Set(prefix, Keep(set));
    }
    return others;
  }

  // A sweep over the ports where a range begins, and those behind its end.
  void CompilePorts() {
    Set now;
    std::map<uint32_t, std::vector<std::pair<size_t, int>>> changes = {{0, {}}};
    std::vector<int> ranges(rules_.size());  // of each rule, that the sweep is in
    for (size_t rule = 0; rule < rules_.size(); ++rule) {
      if (rules_[rule].ports.empty()) now.Add(rule);
      for (const PortRange& range : rules_[rule].ports) {
        changes[range.first].emplace_back(rule, 1);
        changes[range.last + uint32_t{1}].emplace_back(rule, -1);
      }
    }
    to_.portless_ = Keep(now);
    for (const auto& [first, of_rules] : changes) {
      for (const auto& [rule, change] : of_rules) {
        ranges[rule] += change;
        ranges[rule] > 0 ? now.Add(rule) : now.Remove(rule);
      }
      to_.ports_.push_back({first, Keep(now)});
    }
  }

  void CompileProtocols() {
    for (size_t protocol = 0; protocol < to_.protocols_.size(); ++protocol) {
      Set set;
      for (size_t rule = 0; rule < rules_.size(); ++rule) {
        const std::vector<uint8_t>& wanted = rules_[rule].protocols;
        const auto number = static_cast<uint8_t>(protocol);
        if (wanted.empty() || std::find(wanted.begin(), wanted.end(), number) != wanted.end()) {
          set.Add(rule);
        }
      }
      to_.protocols_[protocol] = Keep(set);
    }
  }

  void CompileNames() {
    for (size_t rule = 0; rule < rules_.size(); ++rule) {
      const EgressRule& of = rules_[rule];
      if (of.domains.empty() && of.domain_suffixes.empty()) to_.nameless_.Add(rule);
      for (const std::string& name : of.domains) to_.names_[name].Add(rule);
      for (const std::string& suffix : of.domain_suffixes) to_.suffixes_[suffix].Add(rule);
    }
  }

  EgressRules& to_;
  const std::vector<EgressRule>& rules_;
  absl::flat_hash_map<Set, SetIndex> kept_;
};

EgressRules::EgressRules(std::vector<EgressRule> rules)
    : rules_(std::move(rules)), words_((rules_.size() + 63) / 64) {
  Compiler(*this).Compile();
}

EgressRules::Set EgressRules::NamesSatisfy(std::string_view name) const {
  absl::string_view rest(name.data(), name.size());
  Set set = nameless_;
  if (const auto exact = names_.find(rest); exact != names_.end()) set.Add(exact->second);
  while (!rest.empty()) {
    if (const auto suffix = suffixes_.find(rest); suffix != suffixes_.end()) {
      set.Add(suffix->second);
    }
    rest.remove_prefix(std::min(rest.find('.'), rest.size() - 1) + 1);
  }
  return set;
}

size_t EgressRules::Find(const FlowKey& flow, const Set& names) const {
  const SetIndex* destination = destinations_.Find(flow.destination);
  const SetIndex* source = sources_.Find(flow.source);
  SetIndex ports = portless_;
  if (flow.has_ports()) {
    const auto after =
        std::upper_bound(ports_.begin(), ports_.end(), flow.destination_port,
                         [](uint32_t port, const PortStep& step) { return port < step.first; });
    ports = std::prev(after)->set;
  }
  const Set& by_destination = sets_[destination == nullptr ? other_destinations_ : *destination];
  const Set& by_source = sets_[source == nullptr ? other_sources_ : *source];
  const Set& by_port = sets_[ports];
  const Set& by_protocol = sets_[protocols_[flow.protocol]];
  for (size_t i = 0; i < words_; ++i) {
    const uint64_t all = by_destination.word(i) & by_source.word(i) & by_port.word(i) &
                         by_protocol.word(i) & names.word(i);
    if (all != 0) return i * 64 + static_cast<size_t>(std::countr_zero(all));
  }
  return kNoRule;
}

}  // namespace braid
