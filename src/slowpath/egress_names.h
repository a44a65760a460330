// The rules by which traffic leaves past the tunnel, as the workers have them, with the names that
// addresses are known by: answers of DNS teach them. One thread; what workers read of it is safe to
// read (fastpath/learned_names.h).
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/address.h"
#include "base/bytes.h"
#include "base/clock.h"
#include "fastpath/egress_rules.h"
#include "fastpath/learned_names.h"

namespace braid {

class EgressNames {
 public:
  // What workers get: both live as long as they are held. `names`: null where rules ask for none.
  struct ForWorkers {
    std::shared_ptr<const EgressRules> rules;
    std::shared_ptr<const LearnedNames> names;
  };
  // Compiles the rules; what was learned counts for them, too.
  ForWorkers SetRules(std::vector<EgressRule> rules);

  const EgressRules& rules() const { return *rules_; }
  bool do_names_matter() const { return names_ != nullptr; }

  void Learn(std::string_view name, const IpAddress& address, uint32_t ttl_s);
  // The answer of a name server, as it came.
  void LearnFrom(Bytes message);
  // What was learned of it last; empty: nothing, or too long ago.
  std::string NameOf(const IpAddress& address) const;

 private:
  std::shared_ptr<const EgressRules> rules_;
  std::shared_ptr<LearnedNames> names_;
  NameMemory memory_;
};

}  // namespace braid
