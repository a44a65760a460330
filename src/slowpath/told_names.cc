#include "slowpath/told_names.h"

namespace braid {

void ToldNames::Tell(const IpAddress& client, std::string_view name, const IpAddress& address,
                     TimeNs until_ns) {
  const Key key(client, address);
  if (const auto known = index_.find(key); known != index_.end()) {
    entries_.splice(entries_.begin(), entries_, known->second);
  } else {
    if (entries_.size() >= max_names_) {
      index_.erase(entries_.back().key);
      entries_.pop_back();
    }
    entries_.push_front({key, {}, 0});
    index_.emplace(key, entries_.begin());
  }
  entries_.front().name = name;
  entries_.front().until_ns = until_ns;
}

std::string ToldNames::NameOf(const IpAddress& client, const IpAddress& address,
                              TimeNs now_ns) const {
  const auto found = index_.find({client, address});
  const bool holds = found != index_.end() && now_ns < found->second->until_ns;
  return holds ? found->second->name : std::string();
}

}  // namespace braid
