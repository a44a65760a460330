// A tree of files that stands for a machine's /proc and /sys.
#pragma once

#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <utility>

#include "slowpath/host_files.h"

namespace braid::testing {

class HostTree {
 public:
  HostTree() {
    char name[] = "/tmp/braid-host-XXXXXX";
    root_ = mkdtemp(name);
  }
  ~HostTree() { std::filesystem::remove_all(root_); }
  HostTree(const HostTree&) = delete;
  HostTree& operator=(const HostTree&) = delete;

  void Put(const std::string& path, const std::string& text) {
    std::filesystem::create_directories(std::filesystem::path(root_ + path).parent_path());
    std::ofstream(root_ + path) << text << '\n';
  }
  void Link(const std::string& path, const std::string& target) {
    std::filesystem::create_directories(std::filesystem::path(root_ + path).parent_path());
    std::filesystem::create_symlink(target, root_ + path);
  }
  // In place of the file: something that can be opened and not read, as root too.
  void MakeUnreadable(const std::string& path) {
    std::filesystem::remove(root_ + path);
    std::filesystem::create_directories(root_ + path);
  }
  void Remove(const std::string& path) { std::filesystem::remove_all(root_ + path); }
  std::string Get(const std::string& path) const { return files().Read(path).value_or("(none)"); }
  HostFiles files() const { return HostFiles(root_); }
  const std::string& root() const { return root_; }

  // CPUs 0 … count-1. `threads` CPUs share a core, with numbers `cores` apart, as servers have it.
  void PutCpus(int cores, int threads, int nodes) {
    const std::string folder = "/sys/devices/system/cpu/";
    const int count = cores * threads;
    const auto range = [](int first, int last) {
      return first == last ? std::to_string(first)
                           : std::to_string(first) + "-" + std::to_string(last);
    };
    Put(folder + "online", range(0, count - 1));
    Put(folder + "isolated", "");
    Put("/sys/devices/system/node/online", range(0, nodes - 1));
    for (int cpu = 0; cpu < count; ++cpu) {
      std::string siblings;
      for (int other = cpu % cores; other < count; other += cores) {
        siblings += (siblings.empty() ? "" : ",") + std::to_string(other);
      }
      Put(folder + "cpu" + std::to_string(cpu) + "/topology/thread_siblings_list", siblings);
    }
    for (int node = 0; node < nodes; ++node) {
      std::string cpus;
      for (int thread = 0; thread < threads; ++thread) {
        const int first = thread * cores + node * cores / nodes;
        cpus += (cpus.empty() ? "" : ",") + range(first, first + cores / nodes - 1);
      }
      Put("/sys/devices/system/node/node" + std::to_string(node) + "/cpulist", cpus);
    }
  }

  // What every machine has, all of it as it should be.
  void PutKernel() {
    const std::pair<const char*, const char*> values[] = {
        {"net/core/rmem_max", "4194304"},  {"net/core/wmem_max", "4194304"},
        {"net/core/optmem_max", "131072"}, {"net/core/netdev_max_backlog", "1000"},
        {"net/core/busy_read", "0"},       {"net/core/busy_poll", "0"},
        {"net/core/bpf_jit_enable", "1"},  {"kernel/io_uring_disabled", "0"},
        {"net/ipv4/ip_forward", "0"},      {"net/ipv6/conf/all/forwarding", "0"},
    };
    for (const auto& [name, value] : values) Put(std::string("/proc/sys/") + name, value);
    Put("/sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never");
    Put("/proc/net/softnet_stat", "0000beef 00000000 00000002 00000000\n00000001 00000000 0 0");
    Put("/proc/net/snmp",
        "Ip: Forwarding\nIp: 1\nUdp: InDatagrams NoPorts InErrors OutDatagrams RcvbufErrors\n"
        "Udp: 9 0 0 9 0\nUdpLite: InDatagrams NoPorts InErrors OutDatagrams RcvbufErrors\n"
        "UdpLite: 0 0 0 0 7");
    Put("/proc/net/snmp6", "Udp6InDatagrams 3\nUdp6RcvbufErrors 0");
    Put("/proc/self/cgroup", "0::/");
  }

  void PutDevice(const std::string& name, int queues, bool physical) {
    const std::string folder = "/sys/class/net/" + name + "/";
    Put(folder + "ifindex", "2");
    Put(folder + "threaded", "0");
    Put(folder + "napi_defer_hard_irqs", "0");
    Put(folder + "gro_flush_timeout", "0");
    Put(folder + "statistics/rx_missed_errors", "0");
    Put(folder + "statistics/rx_fifo_errors", "0");
    for (int queue = 0; queue < queues; ++queue) {
      Put(folder + "queues/rx-" + std::to_string(queue) + "/rps_cpus", "00000000,00000000");
      Put(folder + "queues/tx-" + std::to_string(queue) + "/xps_cpus", "00000000,00000000");
    }
    if (physical) Put(folder + "device/numa_node", "-1");
  }

 private:
  std::string root_;
};

}  // namespace braid::testing
