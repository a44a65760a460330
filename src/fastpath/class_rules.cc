#include "fastpath/class_rules.h"

#include <algorithm>

namespace braid {

ClassRules::ClassRules(std::span<const ClassRule> rules) {
  for (size_t i = 0; i < rules.size(); ++i) {
    classes_[i] = rules[i].traffic_class;
    std::unique_ptr<Ports>& ports = rules[i].protocol == kProtocolUdp ? udp_ : tcp_;
    if (ports == nullptr) {
      ports = std::make_unique<Ports>();
      ports->fill(kNoRule);
    }
    for (const PortRange& range : rules[i].ports) {
      for (size_t port = range.first; port <= range.last; ++port) {
        (*ports)[port] = std::min((*ports)[port], static_cast<uint8_t>(i));
      }
    }
  }
}

}  // namespace braid
