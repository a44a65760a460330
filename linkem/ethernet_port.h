// An Ethernet interface, frame by frame, through a packet socket: what arrives there, in batches
// and with the time of its arrival, and what is to leave. Everything that it sets in the kernel
// goes with the socket.
#pragma once

#include <sys/socket.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/bytes.h"
#include "base/clock.h"
#include "io/unique_fd.h"
#include "linkem/frame_cutter.h"
#include "linkem/frame_pool.h"

namespace braid::linkem {

struct PortCounters {
  uint64_t kernel_drops = 0;    // the socket's queue was full; a super-frame counts once
  uint64_t receive_errors = 0;  // frames that the kernel could not describe
  uint64_t send_errors = 0;     // frames that the kernel refused to send
};

class EthernetPort {
 public:
  // What is due waits while a batch is cut; super-frames are many frames each.
  static constexpr int kReceiveBatch = 8;
  static constexpr int kSendBatch = 64;

  struct Arrival {
    TimeNs at_ns;
    MutableBytes vnet_and_frame;  // until the next Receive()
    std::optional<VlanTag> tag;
  };

  // The interface of this name in the calling thread's network namespace, which must be up.
  static absl::StatusOr<std::unique_ptr<EthernetPort>> Open(const std::string& interface);
  ~EthernetPort();

  int fd() const { return fd_.get(); }
  const std::string& interface() const { return interface_; }

  // Takes what has arrived, one batch at most; does not wait. An error when the interface is gone.
  absl::Status Receive(std::vector<Arrival>& arrivals);

  // Takes a frame, which Flush() sends at the latest.
  void Send(FramePtr frame);
  // An error when the interface is gone.
  absl::Status Flush();

  const PortCounters& counters();

 private:
  EthernetPort(std::string interface, int index, UniqueFd fd);
  absl::Status CheckStillThere() const;
  void SendNoted();

  const std::string interface_;
  const int index_;
  const UniqueFd fd_;
  PortCounters counters_;

  struct Incoming;
  std::vector<Incoming> incoming_;
  std::vector<mmsghdr> incoming_headers_;
  std::unique_ptr<uint8_t[]> buffers_;

  // A send may use up the socket's one notice that the interface went.
  bool went_down_ = false;
  std::vector<FramePtr> outgoing_;
  std::vector<mmsghdr> outgoing_headers_;
  std::vector<iovec> outgoing_parts_;
};

}  // namespace braid::linkem
