// Where what enters TUN leaves: the operator's rules, compiled. The first rule of which every
// condition holds counts; where none does, the tunnel's routes decide.
//
// What a flow shows (destination, source, port, protocol, name) leads to a set of rules each, made
// beforehand: those that it satisfies. The flow's rule is the first that is in all of them. (Bit
// vectors: Lakshman and Stiliadis, SIGCOMM 1998.) Immutable once built; a change builds another
// one.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "base/limits.h"
#include "base/prefix_map.h"
#include "fastpath/class_rules.h"
#include "fastpath/flow_key.h"

namespace braid {

struct EgressAction {
  enum class To : uint8_t {
    kTunnel,
    kDirect,  // by this machine's own routes, from an address of its own
    kBlock,
    kGroup,  // through one of a group of upstreams
  };
  To to = To::kTunnel;
  uint16_t group = 0;         // of kGroup: its place in the configuration
  bool silent = false;        // of kBlock: nobody is told
  bool early_accept = false;  // a TCP flow is accepted before it is known whether it gets there

  bool operator==(const EgressAction&) const = default;
};

// Conditions of one kind are alternatives; none of a kind: whatever the flow has.
struct EgressRule {
  std::vector<IpPrefix> prefixes;  // of the destination
  std::vector<IpPrefix> sources;
  std::vector<PortRange> ports;    // of the destination; of TCP and UDP only
  std::vector<uint8_t> protocols;  // as IP numbers them
  // Names of the destination, in lower case, without a dot at the end.
  std::vector<std::string> domains;
  std::vector<std::string> domain_suffixes;  // a domain and all below it
  EgressAction action;

  bool operator==(const EgressRule&) const = default;
};

class EgressRules {
 public:
  static constexpr size_t kNoRule = SIZE_MAX;

  // Which rules, by their place.
  class Set {
   public:
    void Add(size_t rule) { words_[rule / 64] |= uint64_t{1} << rule % 64; }
    bool Has(size_t rule) const { return (words_[rule / 64] >> rule % 64 & 1) != 0; }
    void Add(const Set& other) {
      for (size_t i = 0; i < words_.size(); ++i) words_[i] |= other.words_[i];
    }
    void Remove(size_t rule) { words_[rule / 64] &= ~(uint64_t{1} << rule % 64); }
    uint64_t word(size_t i) const { return words_[i]; }

    bool operator==(const Set&) const = default;
    template <typename H>
    friend H AbslHashValue(H state, const Set& set) {
      return H::combine(std::move(state), set.words_);
    }

   private:
    std::array<uint64_t, kMaxEgressRules / 64> words_{};
  };
  static_assert(kMaxEgressRules % 64 == 0);

  // At most kMaxEgressRules.
  explicit EgressRules(std::vector<EgressRule> rules);

  // The flow's rule; `names`: what NamesSatisfy() said of the names of its destination.
  size_t Find(const FlowKey& flow, const Set& names) const;
  // The same where no name is known.
  size_t Find(const FlowKey& flow) const { return Find(flow, nameless_); }

  const EgressRule& rule(size_t at) const { return rules_[at]; }
  size_t size() const { return rules_.size(); }

  // Whether names matter at all.
  bool has_domains() const { return !names_.empty() || !suffixes_.empty(); }
  // The rules that a destination of this name satisfies as far as names go, also those that ask
  // for none. Several names of one destination: all of them. In lower case, no dot at the end.
  Set NamesSatisfy(std::string_view name) const;

 private:
  using SetIndex = uint32_t;
  struct PortStep {
    uint32_t first;  // from this port on, until the next step
    SetIndex set;
  };

  // Of each set one.
  class Compiler;

  std::vector<EgressRule> rules_;
  size_t words_ = 0;  // of each set that are in use
  std::vector<Set> sets_;
  PrefixMap<SetIndex> destinations_;
  PrefixMap<SetIndex> sources_;
  SetIndex other_destinations_ = 0;  // of what is in none of the prefixes
  SetIndex other_sources_ = 0;
  std::vector<PortStep> ports_;
  SetIndex portless_ = 0;
  std::array<SetIndex, 256> protocols_{};
  absl::flat_hash_map<std::string, Set> names_;
  absl::flat_hash_map<std::string, Set> suffixes_;
  Set nameless_;
};

}  // namespace braid
