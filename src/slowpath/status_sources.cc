#include "slowpath/status_sources.h"

namespace braid {

uint64_t DropsFor(const StatusSources& sources, Drop reason) {
  if (reason == Drop::tun_queue_full) return sources.tun_queue_drops;
  if (reason == Drop::socket_queue_full) return sources.socket_queue_drops;
  return sources.workers.Drops(reason) + sources.peers.drops().Get(reason) +
         sources.stray_drops.Get(reason);
}

}  // namespace braid
