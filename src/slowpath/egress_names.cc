#include "slowpath/egress_names.h"

#include <algorithm>
#include <utility>

namespace braid {
namespace {

constexpr size_t kLearnedAddresses = 65'536;

struct EgressPolicy {
  explicit EgressPolicy(std::vector<EgressRule> of)
      : rules(std::move(of)), names(rules, kLearnedAddresses) {}

  const EgressRules rules;
  LearnedNames names;
};

}  // namespace

EgressNames::ForWorkers EgressNames::SetRules(std::vector<EgressRule> rules, bool do_groups_ask) {
  const bool do_rules_ask = std::any_of(rules.begin(), rules.end(), [](const EgressRule& rule) {
    return !rule.domains.empty() || !rule.domain_suffixes.empty();
  });
  names_ = nullptr;
  if (do_rules_ask || do_groups_ask) {
    const auto policy = std::make_shared<EgressPolicy>(std::move(rules));
    rules_ = {policy, &policy->rules};
    names_ = {policy, &policy->names};
    memory_.Refill(*names_, MonotonicNowNs());
  } else {
    rules_ = std::make_shared<EgressRules>(std::move(rules));
  }
  return {rules_, names_};
}

void EgressNames::Learn(const IpAddress& client, std::string_view name, const IpAddress& address,
                        uint32_t ttl_s) {
  const TimeNs now_ns = MonotonicNowNs();
  const TimeNs until_ns = now_ns + ttl_s * kSecondNs;
  memory_.Learn(name, address, until_ns, now_ns, names_.get());
  told_.Tell(client, name, address, NameHoldsUntil(until_ns, now_ns));
}

void EgressNames::OnTunnelQuery(const FlowKey& flow, Bytes message) {
  auto query = ReadDnsQuery(message);
  if (!query) return;
  const TimeNs now_ns = MonotonicNowNs();
  const Asked asked{flow, query->id};
  asked_[asked] = {std::move(query->question), now_ns};
  asked_order_.emplace_back(now_ns, asked);
  while (asked_order_.size() > kMaxAsked || now_ns - asked_order_.front().first > kAskedForNs) {
    // Unless it was answered, or asked again since.
    const auto oldest = asked_.find(asked_order_.front().second);
    if (oldest != asked_.end() && oldest->second.asked_ns == asked_order_.front().first) {
      asked_.erase(oldest);
    }
    asked_order_.pop_front();
  }
}

void EgressNames::OnTunnelAnswer(const FlowKey& flow, Bytes message) {
  const auto answer = ReadDnsAnswer(message);
  if (!answer) return;
  const auto asked = asked_.find(Asked{flow.Reversed(), answer->id});
  if (asked == asked_.end() || answer->question != asked->second.question) return;
  const bool is_late = MonotonicNowNs() - asked->second.asked_ns > kAskedForNs;
  asked_.erase(asked);
  if (is_late) return;
  for (const DnsAddress& one : answer->addresses) {
    Learn(flow.destination, one.name, one.address, one.ttl_s);
  }
}

std::string EgressNames::NameOf(const IpAddress& client, const IpAddress& address) const {
  return told_.NameOf(client, address, MonotonicNowNs());
}

}  // namespace braid
