#include "io/tun.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <string.h>
#include <sys/ioctl.h>

#include "absl/status/status.h"
#include "io/vnet_header.h"

#ifndef TUN_F_USO4  // since Linux 6.2; Debian 12's headers are older
#define TUN_F_USO4 0x20
#define TUN_F_USO6 0x40
#endif

namespace braid {
namespace {

constexpr char kTunNode[] = "/dev/net/tun";

absl::Status AttachError(const std::string& name, int error) {
  switch (error) {
    case EPERM:
      return absl::PermissionDeniedError("network.device: creating \"" + name +
                                         "\" needs CAP_NET_ADMIN (run as root)");
    case EBUSY:
      return absl::AlreadyExistsError("network.device: \"" + name +
                                      "\" exists already; stop the program that made it or choose "
                                      "another name");
    case EINVAL:
      return absl::AlreadyExistsError("network.device: \"" + name +
                                      "\" exists and is not a multi-queue TUN device; remove it or "
                                      "choose another name");
    default:
      return absl::ErrnoToStatus(error, "network.device: cannot create \"" + name + "\"");
  }
}

TunOffloads AgreeOnOffloads(int fd, bool want_offloads) {
  if (!want_offloads) {
    SetTunOffloads(fd, {});
    return {};
  }
  constexpr TunOffloads kWishes[] = {{true, true, true}, {true, true, false}, {true, false, false}};
  for (const TunOffloads& wish : kWishes) {
    if (SetTunOffloads(fd, wish)) return wish;
  }
  return {};
}

}  // namespace

bool SetTunOffloads(int queue_fd, const TunOffloads& offloads) {
  unsigned flags = 0;
  if (offloads.checksum) flags |= TUN_F_CSUM;
  if (offloads.tso) flags |= TUN_F_TSO4 | TUN_F_TSO6;
  if (offloads.uso) flags |= TUN_F_USO4 | TUN_F_USO6;
  return ioctl(queue_fd, TUNSETOFFLOAD, flags) == 0;
}

bool IsGone(const TunDevice& device) {
  ifreq request{};
  return ioctl(device.queues.at(0).get(), TUNGETIFF, &request) != 0 && errno == EBADFD;
}

absl::StatusOr<TunDevice> OpenTun(const std::string& name, int queues, bool want_offloads) {
  TunDevice device{name, {}, {}};
  for (int i = 0; i < queues; ++i) {
    UniqueFd fd(open(kTunNode, O_RDWR | O_CLOEXEC | O_NONBLOCK));
    if (!fd) {
      const int error = errno;
      return absl::ErrnoToStatus(error, std::string("cannot open ") + kTunNode +
                                            (error == ENOENT ? " (load the tun module)" : ""));
    }
    ifreq request{};
    request.ifr_flags = IFF_TUN | IFF_NO_PI | IFF_VNET_HDR | IFF_MULTI_QUEUE;
    // The first queue makes the device; joining one that another program made would share it.
    if (i == 0) request.ifr_flags = static_cast<short>(request.ifr_flags | IFF_TUN_EXCL);
    strncpy(request.ifr_name, name.c_str(), IFNAMSIZ - 1);
    if (ioctl(fd.get(), TUNSETIFF, &request) != 0) return AttachError(name, errno);
    int header_bytes = kVnetHeaderBytes;
    if (ioctl(fd.get(), TUNSETVNETHDRSZ, &header_bytes) != 0) {
      return absl::ErrnoToStatus(errno, "network.device: the kernel refuses the vnet header");
    }
    device.queues.push_back(std::move(fd));
  }
  // Offloads belong to the device, not to a queue.
  device.offloads = AgreeOnOffloads(device.queues.front().get(), want_offloads);
  return device;
}

}  // namespace braid
