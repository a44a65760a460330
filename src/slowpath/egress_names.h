// The rules by which traffic leaves past the tunnel, as the workers have them, with the names that
// addresses are known by: answers of DNS teach them. One thread; what workers read of it is safe to
// read (fastpath/learned_names.h).
#pragma once

#include <deque>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "base/address.h"
#include "base/bytes.h"
#include "base/clock.h"
#include "egress/dns_message.h"
#include "fastpath/egress_rules.h"
#include "fastpath/learned_names.h"
#include "slowpath/told_names.h"

namespace braid {

class EgressNames {
 public:
  // What workers get: both live as long as they are held. `names`: null where nobody asks for any.
  struct ForWorkers {
    std::shared_ptr<const EgressRules> rules;
    std::shared_ptr<const LearnedNames> names;
  };
  // Compiles the rules; what was learned counts for them, too. `do_groups_ask`: where a name is
  // known, some group is told it in place of the address.
  ForWorkers SetRules(std::vector<EgressRule> rules, bool do_groups_ask);

  const EgressRules& rules() const { return *rules_; }
  bool do_names_matter() const { return names_ != nullptr; }

  // An answer that `client` gets says so.
  void Learn(const IpAddress& client, std::string_view name, const IpAddress& address,
             uint32_t ttl_s);
  // A query that goes through the tunnel, from client to server; and what comes through it from
  // port 53, as it came, from server to client. Only answers to what was asked are believed.
  void OnTunnelQuery(const FlowKey& flow, Bytes message);
  void OnTunnelAnswer(const FlowKey& flow, Bytes message);
  // What the client was told of it last; empty: nothing, or too long ago.
  std::string NameOf(const IpAddress& client, const IpAddress& address) const;

 private:
  static constexpr size_t kMaxAsked = 4096;
  static constexpr DurationNs kAskedForNs = 10 * kSecondNs;

  struct Asked {
    FlowKey flow;
    uint16_t id = 0;

    bool operator==(const Asked&) const = default;
    template <typename H>
    friend H AbslHashValue(H state, const Asked& asked) {
      return H::combine(std::move(state), asked.flow, asked.id);
    }
  };
  struct Question {
    DnsQuestion question;
    TimeNs asked_ns = 0;
  };

  std::shared_ptr<const EgressRules> rules_;
  std::shared_ptr<LearnedNames> names_;
  NameMemory memory_;
  ToldNames told_;
  absl::flat_hash_map<Asked, Question> asked_;
  std::deque<std::pair<TimeNs, Asked>> asked_order_;  // what was asked longest ago is first
};

}  // namespace braid
