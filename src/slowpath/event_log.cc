#include "slowpath/event_log.h"

#include <nlohmann/json.hpp>
#include <utility>

#include "slowpath/control_protocol.h"

namespace braid {
namespace {

size_t BytesOf(const LoggedEvent& event) { return event.type.size() + event.data.size(); }

}  // namespace

EventLog::EventLog(uint64_t wall_now_ns, const EventLogLimits& limits)
    : limits_(limits), last_id_(wall_now_ns / kMicrosecondNs) {}

void EventLog::Publish(std::string_view type, const nlohmann::ordered_json& data,
                       uint64_t wall_now_ns) {
  kept_.push_back({++last_id_, wall_now_ns / kMillisecondNs, std::string(type), ToJsonText(data)});
  kept_bytes_ += BytesOf(kept_.back());
  // The newest stays, however long it is: it is this daemon's own.
  while (kept_.size() > 1 && (kept_.size() > limits_.events || kept_bytes_ > limits_.bytes)) {
    kept_bytes_ -= BytesOf(kept_.front());
    kept_.pop_front();
  }
  for (Follower* follower : followers_) follower->on_news_();
}

std::unique_ptr<EventLog::Follower> EventLog::Follow(std::optional<uint64_t> after,
                                                     std::function<void()> on_news) {
  const uint64_t from = after.value_or(last_id_);
  const bool is_known = from + 1 >= first_id() && from <= last_id_;
  std::unique_ptr<Follower> follower(
      new Follower(*this, is_known ? from + 1 : first_id(), !is_known, std::move(on_news)));
  followers_.insert(follower.get());
  return follower;
}

const LoggedEvent* EventLog::Find(uint64_t id) const {
  if (id < first_id() || id > last_id_) return nullptr;
  return &kept_[id - first_id()];
}

EventLog::Follower::Follower(EventLog& log, uint64_t next_id, bool has_missed,
                             std::function<void()> on_news)
    : log_(log), next_id_(next_id), has_missed_(has_missed), on_news_(std::move(on_news)) {}

const LoggedEvent* EventLog::Follower::Next() {
  const LoggedEvent* event = log_.Find(next_id_);
  if (event != nullptr) ++next_id_;
  return event;
}

}  // namespace braid
