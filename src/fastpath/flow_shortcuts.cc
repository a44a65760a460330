#include "fastpath/flow_shortcuts.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <net/if.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "absl/strings/str_cat.h"
#include "flow_shortcuts.skel.h"

namespace braid {
namespace {

// Before others that somebody may add.
constexpr uint32_t kShortcutPriority = 1;
constexpr uint32_t kShortcutHandle = 1;

// Addresses and ports as they stand behind each other in a header.
std::array<uint8_t, 36> ShortcutEndsOf(const FlowKey& flow) {
  std::array<uint8_t, 36> ends;
  const auto address_bytes = static_cast<size_t>(flow.source.bytes_used());
  uint8_t* at = std::copy_n(flow.source.bytes.begin(), address_bytes, ends.begin());
  at = std::copy_n(flow.destination.bytes.begin(), address_bytes, at);
  StoreBe16(at, flow.source_port);
  StoreBe16(at + 2, flow.destination_port);
  return ends;
}

class BpfShortcuts final : public FlowShortcuts {
 public:
  explicit BpfShortcuts(flow_shortcuts_bpf* program) : program_(program) {}
  ~BpfShortcuts() override { flow_shortcuts_bpf__destroy(program_); }
  BpfShortcuts(const BpfShortcuts&) = delete;
  BpfShortcuts& operator=(const BpfShortcuts&) = delete;

  bool Add(const FlowKey& from, const FlowKey& to) override {
    const auto key = ShortcutEndsOf(from);
    const auto value = ShortcutEndsOf(to);
    return bpf_map_update_elem(MapOf(from), key.data(), value.data(), BPF_ANY) == 0;
  }
  void Remove(const FlowKey& from) override {
    bpf_map_delete_elem(MapOf(from), ShortcutEndsOf(from).data());
  }

 private:
  int MapOf(const FlowKey& flow) const {
    return bpf_map__fd(flow.source.is_v4() ? program_->maps.v4_flows : program_->maps.v6_flows);
  }

  flow_shortcuts_bpf* const program_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<FlowShortcuts>> AttachFlowShortcuts(const std::string& device,
                                                                   size_t max_flows) {
  // What the library has to say, the status says.
  libbpf_set_print(nullptr);
  const unsigned index = if_nametoindex(device.c_str());
  if (index == 0) return absl::ErrnoToStatus(errno, device);
  flow_shortcuts_bpf* const program = flow_shortcuts_bpf__open();
  if (program == nullptr) return absl::ErrnoToStatus(errno, "opening the BPF program of flows");
  auto shortcuts = std::make_unique<BpfShortcuts>(program);
  const auto both_ways = static_cast<uint32_t>(2 * max_flows);
  bpf_map__set_max_entries(program->maps.v4_flows, both_ways);
  bpf_map__set_max_entries(program->maps.v6_flows, both_ways);
  if (const int error = flow_shortcuts_bpf__load(program); error != 0) {
    return absl::ErrnoToStatus(-error, "loading the BPF program of flows");
  }
  bpf_tc_hook hook{};
  hook.sz = sizeof(hook);
  hook.ifindex = static_cast<int>(index);
  hook.attach_point = BPF_TC_EGRESS;
  const int made = bpf_tc_hook_create(&hook);
  bpf_tc_opts options{};
  options.sz = sizeof(options);
  options.prog_fd = bpf_program__fd(program->progs.turn_round);
  options.handle = kShortcutHandle;
  options.priority = kShortcutPriority;
  options.flags = BPF_TC_F_REPLACE;
  const int error = made == 0 || made == -EEXIST ? bpf_tc_attach(&hook, &options) : made;
  if (error != 0) {
    return absl::ErrnoToStatus(-error, absl::StrCat("attaching the BPF program to ", device));
  }
  return shortcuts;
}

}  // namespace braid
