// Connects to where a TCP flow wants to, from this machine itself, past the tunnel. Lives on the
// thread of its io_context, which must outlive it.
#pragma once

#include <boost/asio/io_context.hpp>
#include <chrono>
#include <functional>
#include <memory>

#include "absl/container/flat_hash_set.h"
#include "base/address.h"
#include "fastpath/egress_options.h"
#include "io/unique_fd.h"

namespace braid {

// What its initiator is to see: a connection, or else a verdict that tells why not.
struct Dialed {
  // `error`: of kUnreachable.
  static Dialed Not(TcpVerdict::Type why, IcmpError::What error = IcmpError::What::kNoHost) {
    return {{}, nullptr, why, error};
  }

  UniqueFd far;
  std::shared_ptr<void> hold;  // goes when the flow ends, on whatever thread; may be null
  TcpVerdict::Type verdict = TcpVerdict::Type::kOpen;
  IcmpError::What error = IcmpError::What::kNoHost;  // of kUnreachable
};

// What the kernel said of a connection that did not come about.
Dialed NotDialed(int error_number);

class TcpDialer {
 public:
  using OnDialed = std::function<void(Dialed)>;
  // Nobody waits for it any more: `on_dialed` is not called, and nothing is left of it. Of no
  // effect once it was called. In the loop, and not after whoever gave this has gone.
  using GiveUp = std::function<void()>;

  TcpDialer(boost::asio::io_context& io, std::chrono::milliseconds timeout);
  ~TcpDialer();

  // Calls `on_dialed` once, in the loop, later; not after Close().
  GiveUp Dial(const Endpoint& to, OnDialed on_dialed);
  // Gives up all that is under way.
  void Close();

  size_t under_way() const;

 private:
  struct Attempt;
  using Attempts = absl::flat_hash_set<std::shared_ptr<Attempt>>;
  void Begin(const std::shared_ptr<Attempt>& attempt, const Endpoint& to);

  boost::asio::io_context& io_;
  const std::chrono::milliseconds timeout_;
  const std::shared_ptr<Attempts> attempts_;  // handlers look whether theirs is still among them
};

}  // namespace braid
