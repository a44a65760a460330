// The UDP sockets of one worker, by group and lane. They come and go by command; there is room for
// all that there may ever be from the start. A socket's place is its id at the backend.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <vector>

#include "base/limits.h"
#include "fastpath/path_set.h"

namespace braid {

// A UDP socket that a worker owns. A client has one for each of the worker's lanes on each path,
// and one there for its bonds (lane kFirstBondLane), a server one for each listening address.
struct WorkerSocket {
  int fd = -1;
  uint16_t group = 0;  // which path and family, or which listening address
  int16_t lane = Incoming::kAnyLane;
  bool answers_from_local = false;  // bound to no address: answers from the one it was spoken to
};

// All that the workers get of one group. Made by the slow path, immutable from then on.
struct SocketGroup {
  uint16_t group = 0;
  uint32_t generation = 0;  // of those that have had this number
  std::vector<std::vector<WorkerSocket>> by_worker;
};

class SocketTable {
 public:
  SocketTable(int lanes, int workers)
      : workers_(workers),
        places_(static_cast<size_t>((lanes + workers - 1) / workers) + 1),
        sockets_(kMaxSocketGroups * places_) {}

  // The socket's id. A group has either one socket for any lane, or one for each and one for bonds.
  uint16_t Put(const WorkerSocket& socket) {
    any_lane_[socket.group] = socket.lane == Incoming::kAnyLane;
    const size_t id = PlaceOf(socket.group, any_lane_[socket.group] ? 0 : socket.lane);
    sockets_[id] = socket;
    return static_cast<uint16_t>(id);
  }

  // The socket to send `lane` through. -1 when there is none.
  int Find(uint16_t group, uint8_t lane) const {
    if (group >= kMaxSocketGroups) return -1;
    const int at = any_lane_[group] ? 0 : lane;
    const bool has_place = IsBondLane(lane) || static_cast<size_t>(at / workers_) + 1 < places_;
    return has_place ? sockets_[PlaceOf(group, at)].fd : -1;
  }

  // Takes a group's sockets away, each with `remove(fd)`.
  template <typename Remove>
  void Clear(uint16_t group, Remove&& remove) {
    for (size_t i = 0; i < places_; ++i) {
      WorkerSocket& socket = sockets_[group * places_ + i];
      if (socket.fd >= 0) remove(socket.fd);
      socket = {};
    }
  }

  const WorkerSocket& operator[](uint16_t id) const { return sockets_[id]; }

 private:
  size_t PlaceOf(uint16_t group, int lane) const {
    const size_t place =
        IsBondLane(static_cast<uint8_t>(lane)) ? places_ - 1 : static_cast<size_t>(lane / workers_);
    return group * places_ + place;
  }

  const int workers_;
  const size_t places_;  // of a group: the worker's lanes, and its bonds
  std::vector<WorkerSocket> sockets_;
  std::array<bool, kMaxSocketGroups> any_lane_{};
};

}  // namespace braid
