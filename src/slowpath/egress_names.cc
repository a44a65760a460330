#include "slowpath/egress_names.h"

#include <algorithm>
#include <utility>

#include "egress/dns_message.h"

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

EgressNames::ForWorkers EgressNames::SetRules(std::vector<EgressRule> rules) {
  const bool do_names_matter = std::any_of(rules.begin(), rules.end(), [](const EgressRule& rule) {
    return !rule.domains.empty() || !rule.domain_suffixes.empty();
  });
  names_ = nullptr;
  if (do_names_matter) {
    const auto policy = std::make_shared<EgressPolicy>(std::move(rules));
    rules_ = {policy, &policy->rules};
    names_ = {policy, &policy->names};
    memory_.Refill(*names_, MonotonicNowNs());
  } else {
    rules_ = std::make_shared<EgressRules>(std::move(rules));
  }
  return {rules_, names_};
}

void EgressNames::Learn(std::string_view name, const IpAddress& address, uint32_t ttl_s) {
  const TimeNs now_ns = MonotonicNowNs();
  const TimeNs until_ns = now_ns + ttl_s * kSecondNs;
  memory_.Remember(name, address, until_ns, now_ns);
  if (names_ != nullptr) names_->Learn(name, address, until_ns, now_ns);
}

void EgressNames::LearnFrom(Bytes message) {
  const auto answer = ReadDnsAnswer(message);
  if (!answer) return;
  for (const DnsAddress& one : answer->addresses) Learn(one.name, one.address, one.ttl_s);
}

std::string EgressNames::NameOf(const IpAddress& address) const {
  return memory_.LastNameOf(address, MonotonicNowNs());
}

}  // namespace braid
