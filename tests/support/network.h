// A network of a test's own: a thread that lives in a fresh network namespace, so that devices and
// addresses disturb nobody and go away with it. Needs root, and fails where it is not had.
#pragma once

#include <gtest/gtest.h>
#include <net/if.h>
#include <linux/ipv6.h>
#include <netinet/in.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>
#include <functional>
#include <string>
#include <thread>

#include "base/address.h"
#include "io/unique_fd.h"

namespace braid::testing {

// Brings the interface up. Returns whether that worked; errno says why not.
inline bool BringUp(const std::string& interface) {
  const UniqueFd fd(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  ifreq request{};
  strncpy(request.ifr_name, interface.c_str(), IFNAMSIZ - 1);
  if (ioctl(fd.get(), SIOCGIFFLAGS, &request) != 0) return false;
  request.ifr_flags |= IFF_UP;
  return ioctl(fd.get(), SIOCSIFFLAGS, &request) == 0;
}

inline bool SetMtu(const std::string& interface, int mtu) {
  const UniqueFd fd(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  ifreq request{};
  strncpy(request.ifr_name, interface.c_str(), IFNAMSIZ - 1);
  request.ifr_mtu = mtu;
  return ioctl(fd.get(), SIOCSIFMTU, &request) == 0;
}

inline bool AddIpv4(const std::string& interface, const IpPrefix& prefix) {
  const UniqueFd fd(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  ifreq request{};
  strncpy(request.ifr_name, interface.c_str(), IFNAMSIZ - 1);
  auto& address = reinterpret_cast<sockaddr_in&>(request.ifr_addr);
  address.sin_family = AF_INET;
  std::memcpy(&address.sin_addr, prefix.address.bytes.data(), 4);
  if (ioctl(fd.get(), SIOCSIFADDR, &request) != 0) return false;
  address.sin_addr.s_addr = htonl(prefix.length == 0 ? 0 : ~uint32_t{0} << (32 - prefix.length));
  return ioctl(fd.get(), SIOCSIFNETMASK, &request) == 0;
}

// Runs `body` on a thread of its own, in a network namespace of its own whose loopback is up.
inline void InFreshNetwork(const std::function<void()>& body) {
  std::thread([&] {
    ASSERT_EQ(unshare(CLONE_NEWNET), 0)
        << "this test needs root (CAP_SYS_ADMIN) for a network namespace: " << strerror(errno);
    ASSERT_TRUE(BringUp("lo")) << strerror(errno);
    body();
  }).join();
}

}  // namespace braid::testing
