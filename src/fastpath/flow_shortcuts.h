// TCP flows that the kernel turns round by itself: a program on the device's way out
// (fastpath/bpf/flow_shortcuts.bpf.c) gives their packets other addresses and ports, and lets them
// arrive from the device at once. Neither copies nor wakes anybody; what begins or ends a flow still
// comes to the worker.
//
// Any thread may add and remove. The kernel forgets all of it with the device, or with this.
#pragma once

#include <cstddef>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "fastpath/flow_key.h"

namespace braid {

class FlowShortcuts {
 public:
  virtual ~FlowShortcuts() = default;

  // Packets of TCP flow `from` go on as those of `to`, which is of the same family. False: there is
  // no room, and they go the long way.
  virtual bool Add(const FlowKey& from, const FlowKey& to) = 0;
  virtual void Remove(const FlowKey& from) = 0;
};

// For so many flows of each address family, both ways of each. Takes CAP_BPF and CAP_NET_ADMIN.
absl::StatusOr<std::unique_ptr<FlowShortcuts>> AttachFlowShortcuts(const std::string& device,
                                                                   size_t max_flows);

}  // namespace braid
