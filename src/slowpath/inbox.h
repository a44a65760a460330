// What other threads tell the slow path, taken in its loop: waits on a doorbell and has what came
// taken in portions, so that the loop's other work has its turn between them.
#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <functional>
#include <memory>

#include "fastpath/mailbox.h"

namespace braid {

class Inbox {
 public:
  // `is_empty` and `take_some` are called in the loop, until Close(); the doorbell outlives this.
  Inbox(boost::asio::io_context& io, Doorbell& doorbell, std::function<bool()> is_empty,
        std::function<void()> take_some);
  ~Inbox();

  void Start();
  // Nothing is called after this.
  void Close();

 private:
  struct Core;
  const std::shared_ptr<Core> core_;
};

}  // namespace braid
