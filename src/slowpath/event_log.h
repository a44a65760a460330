// What happens to the daemon, as it happens: a bounded history that each follower reads at its own
// pace. There is one copy of each event, so a follower costs no more than its place in the history;
// one that is so slow that the history goes on without it has lost its place. Independent of how
// events are delivered. One thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_set>

#include "base/clock.h"

namespace braid {

struct LoggedEvent {
  uint64_t id = 0;       // rises by one; also from daemon to daemon unless the clock steps back
  uint64_t time_ms = 0;  // since 1970
  std::string type;      // "path_up": lower case letters, digits and underscores
  std::string data;      // a JSON object on one line
};

inline constexpr size_t kMaxKeptEvents = 1024;
inline constexpr size_t kMaxKeptEventBytes = 1 << 20;  // of types and data

struct EventLogLimits {
  size_t events = kMaxKeptEvents;
  size_t bytes = kMaxKeptEventBytes;
};

class EventLog {
 public:
  class Follower;

  // Ids begin with the microseconds since 1970, so that a follower of an earlier daemon's is told
  // that it has missed something, and not given what it takes for old: as long as the clock was not
  // set back behind what that daemon began with and published since.
  explicit EventLog(uint64_t wall_now_ns = WallNowNs(), const EventLogLimits& limits = {});

  void Publish(std::string_view type, const nlohmann::ordered_json& data,
               uint64_t wall_now_ns = WallNowNs());

  // `on_news` is called by Publish(), which it must neither call nor add or end followers by. With
  // `after` the history behind that event comes first. The log must outlive the follower.
  std::unique_ptr<Follower> Follow(std::optional<uint64_t> after, std::function<void()> on_news);

  uint64_t last_id() const { return last_id_; }
  size_t followers() const { return followers_.size(); }

 private:
  const LoggedEvent* Find(uint64_t id) const;
  uint64_t first_id() const { return last_id_ + 1 - kept_.size(); }

  const EventLogLimits limits_;
  uint64_t last_id_;
  std::deque<LoggedEvent> kept_;  // their ids follow each other up to last_id_
  size_t kept_bytes_ = 0;
  std::unordered_set<Follower*> followers_;
};

class EventLog::Follower {
 public:
  ~Follower() { log_.followers_.erase(this); }
  Follower(const Follower&) = delete;
  Follower& operator=(const Follower&) = delete;

  // The next event, valid until the next Publish(); null when there is none yet, or none any more.
  const LoggedEvent* Next();
  // There are events that it can not be given: it was too slow.
  bool has_lost() const { return next_id_ < log_.first_id(); }
  // Between the event that it asked to go on from and the first that it is given there were others,
  // or may have been.
  bool has_missed() const { return has_missed_; }

 private:
  friend EventLog;
  Follower(EventLog& log, uint64_t next_id, bool has_missed, std::function<void()> on_news);

  EventLog& log_;
  uint64_t next_id_;
  const bool has_missed_;
  const std::function<void()> on_news_;
};

}  // namespace braid
