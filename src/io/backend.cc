#include "io/backend.h"

namespace braid {

absl::StatusOr<std::unique_ptr<Backend>> MakeBackend(BackendChoice choice, PacketPool& pool,
                                                     std::string& fallback_reason) {
  if (choice == BackendChoice::kEpoll) return MakeEpollBackend(pool);
  auto uring = MakeUringBackend(pool);
  if (uring.ok() || choice == BackendChoice::kUring) return uring;
  fallback_reason = std::string(uring.status().message());
  return MakeEpollBackend(pool);
}

}  // namespace braid
