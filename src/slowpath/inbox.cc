#include "slowpath/inbox.h"

#include <unistd.h>

#include <boost/asio/post.hpp>
#include <utility>

namespace braid {

namespace asio = boost::asio;

// Kept alive by the wait that is under way.
struct Inbox::Core : std::enable_shared_from_this<Core> {
  Core(asio::io_context& loop, Doorbell& bell, std::function<bool()> empty,
       std::function<void()> take)
      : io(loop),
        doorbell(bell),
        is_empty(std::move(empty)),
        take_some(std::move(take)),
        descriptor(loop, dup(bell.fd())) {}

  void Wait();
  void Take();

  asio::io_context& io;
  Doorbell& doorbell;
  const std::function<bool()> is_empty;
  const std::function<void()> take_some;
  asio::posix::stream_descriptor descriptor;
  bool closed = false;
};

void Inbox::Core::Wait() {
  doorbell.AnnounceSleep();
  if (!is_empty()) {
    doorbell.AnnounceAwake();
    asio::post(io, [self = shared_from_this()] { self->Take(); });
    return;
  }
  descriptor.async_wait(asio::posix::stream_descriptor::wait_read,
                        [self = shared_from_this()](const boost::system::error_code& error) {
                          if (error || self->closed) return;
                          uint64_t count;
                          (void)!read(self->descriptor.native_handle(), &count, sizeof(count));
                          self->Take();
                        });
}

void Inbox::Core::Take() {
  if (closed) return;
  take_some();
  if (!closed) Wait();
}

Inbox::Inbox(asio::io_context& io, Doorbell& doorbell, std::function<bool()> is_empty,
             std::function<void()> take_some)
    : core_(std::make_shared<Core>(io, doorbell, std::move(is_empty), std::move(take_some))) {}

Inbox::~Inbox() { Close(); }

void Inbox::Start() { core_->Wait(); }

void Inbox::Close() {
  core_->closed = true;
  boost::system::error_code ignored;
  core_->descriptor.close(ignored);
}

}  // namespace braid
