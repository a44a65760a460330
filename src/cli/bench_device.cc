// `braid bench device`: what this kernel's TUN and UDP give and take, offload by offload, through
// the same code as the tunnel's workers, in network namespaces that only this process knows.
//
//   read    packet socket ──► TUN ──► backend       write   backend ──► TUN ──► the kernel's UDP,
//   TCP udp     backend ──► loopback, or a veth pair between two namespaces ──► backend
#include <errno.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/utsname.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_format.h"
#include "base/clock.h"
#include "base/limits.h"
#include "base/packet_pool.h"
#include "cli/bench.h"
#include "cli/outcome.h"
#include "fastpath/inner_packet.h"
#include "io/backend.h"
#include "io/tun.h"
#include "io/udp.h"
#include "io/vnet_header.h"
#include "slowpath/cpu_topology.h"
#include "slowpath/throwaway_network.h"

namespace braid {
namespace {

constexpr char kTunName[] = "bench0";
constexpr size_t kMtu = 1420;
constexpr size_t kDatagramBytes = kMtu + kSealOverheadBytes;
constexpr size_t kSuperSegments = kMaxTrainBytes / kDatagramBytes;  // as the tunnel's trains
constexpr uint16_t kDiscardPort = 9;
constexpr size_t kBatch = 64;
constexpr DurationNs kPollNs = 10 * kMillisecondNs;

struct DeviceArguments {
  double seconds = 0.4;  // of each measurement
  bool json = false;
  DurationNs time_ns() const { return static_cast<DurationNs>(seconds * 1e9); }
};

IpAddress Address(const char* text) { return *IpAddress::Parse(text); }

std::vector<BackendChoice> Backends() { return {BackendChoice::kUring, BackendChoice::kEpoll}; }

std::string NameOf(BackendChoice choice) {
  return choice == BackendChoice::kUring ? "io_uring" : "epoll";
}

// A backend and its buffers, on the thread that uses them.
struct Rig {
  std::unique_ptr<PacketPool> pool;
  std::unique_ptr<Backend> backend;
};

absl::StatusOr<Rig> MakeRig(BackendChoice choice) {
  Rig rig;
  auto pool = PacketPool::Create(kReceivePoolBuffers);
  if (!pool.ok()) return pool.status();
  rig.pool = *std::move(pool);
  rig.pool->BindToThisThread();
  std::string fallback_reason;
  auto backend = MakeBackend(choice, *rig.pool, fallback_reason);
  if (!backend.ok()) return backend.status();
  rig.backend = *std::move(backend);
  return rig;
}

// Counts what arrives, and lets go of it.
class DatagramCounter final : public Backend::Sink {
 public:
  void OnTunPacket(PacketPtr packet) override {
    ++packets;
    bytes += packet->length - kVnetHeaderBytes;
  }
  void OnDatagrams(PacketPtr packet, const Arrival& arrival) override {
    const size_t each = std::max<size_t>(arrival.datagram_bytes, 1);
    packets += (packet->length + each - 1) / each;
    bytes += packet->length;
  }

  uint64_t packets = 0;
  uint64_t bytes = 0;
};

double PerSecond(uint64_t count, DurationNs time_ns) {
  return static_cast<double>(count) * 1e9 / static_cast<double>(time_ns);
}

// --- Packets as the kernel and the tunnel hand them to each other ---

struct OffloadCase {
  const char* name;
  TunOffloads offloads;
  bool tcp;
  size_t segments;
};
constexpr OffloadCase kOffloadCases[] = {
    {"none", {false, false, false}, false, 1},
    {"CSUM", {true, false, false}, false, 1},
    {"TSO", {true, true, false}, true, kSuperSegments},
    {"USO", {true, false, true}, false, kSuperSegments},
};

enum class Checksum : bool { kWhole, kPartial };

// A vnet header and a packet from 10.99.0.2 to 10.99.0.1. TCP is a reset of a connection that there
// is not, which the kernel takes in and answers with nothing.
std::vector<uint8_t> BuildPacket(const OffloadCase& of, Checksum checksum) {
  const size_t l4_bytes = of.tcp ? 20 : 8;
  const size_t segment_bytes = kMtu - 20 - l4_bytes;
  const size_t packet_bytes = 20 + l4_bytes + of.segments * segment_bytes;
  std::vector<uint8_t> buffer(kVnetHeaderBytes + packet_bytes, 0x5a);
  const MutableBytes packet(buffer.data() + kVnetHeaderBytes, packet_bytes);
  std::fill_n(packet.begin(), 20 + l4_bytes, uint8_t{0});
  packet[0] = 0x45;
  StoreBe16(&packet[2], static_cast<uint16_t>(packet_bytes));
  packet[8] = 64;
  packet[9] = of.tcp ? kProtocolTcp : kProtocolUdp;
  std::memcpy(&packet[12], Address("10.99.0.2").bytes.data(), 4);
  std::memcpy(&packet[16], Address("10.99.0.1").bytes.data(), 4);
  SetIpv4HeaderChecksum(packet.data());
  StoreBe16(&packet[20], kDiscardPort);
  StoreBe16(&packet[22], kDiscardPort);
  if (of.tcp) {
    packet[32] = 0x50;
    packet[33] = 0x04;  // RST
  } else {
    StoreBe16(&packet[24], static_cast<uint16_t>(packet_bytes - 20));
  }
  InnerPacket inner;
  if (!ParseInner(packet, inner)) return {};
  const uint64_t pseudo = PseudoHeaderSum(packet, inner, static_cast<uint32_t>(packet_bytes - 20));
  const size_t checksum_at = 20 + inner.checksum_offset();
  StoreBe16(&packet[checksum_at], ChecksumFold(pseudo));
  VnetHeader header{};
  if (checksum == Checksum::kPartial) {
    header.flags = VnetHeader::kNeedsChecksum;
    header.checksum_start = 20;
    header.checksum_offset = inner.checksum_offset();
  } else {
    FinishChecksum(packet, 20, checksum_at);
  }
  if (of.segments > 1) {
    header.gso_type = of.tcp ? VnetHeader::kGsoTcpV4 : VnetHeader::kGsoUdpL4;
    header.gso_bytes = static_cast<uint16_t>(segment_bytes);
    header.header_bytes = static_cast<uint16_t>(20 + l4_bytes);
  }
  std::memcpy(buffer.data(), &header, sizeof(header));
  return buffer;
}

// --- TUN ---

// Hands packets to the device as the network stack would.
absl::StatusOr<UniqueFd> OpenInjector() {
  UniqueFd fd(socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0));
  if (!fd) return absl::ErrnoToStatus(errno, "cannot open a packet socket");
  const int on = 1;
  if (setsockopt(fd.get(), SOL_PACKET, PACKET_VNET_HDR, &on, sizeof(on)) != 0) {
    return absl::ErrnoToStatus(errno, "packet sockets take no vnet header");
  }
  sockaddr_ll address{};
  address.sll_family = AF_PACKET;
  address.sll_protocol = htons(ETH_P_IP);
  address.sll_ifindex = static_cast<int>(if_nametoindex(kTunName));
  if (bind(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0) {
    return absl::ErrnoToStatus(errno, "cannot bind a packet socket");
  }
  return fd;
}

// 0, or the errno with which the kernel refuses the packet.
int Inject(int fd, const std::vector<uint8_t>& packet, const std::atomic<bool>& stop) {
  std::array<iovec, kBatch> parts;
  std::array<mmsghdr, kBatch> messages{};
  for (size_t i = 0; i < kBatch; ++i) {
    parts[i] = {const_cast<uint8_t*>(packet.data()), packet.size()};
    messages[i].msg_hdr.msg_iov = &parts[i];
    messages[i].msg_hdr.msg_iovlen = 1;
  }
  while (!stop.load(std::memory_order_relaxed)) {
    if (sendmmsg(fd, messages.data(), kBatch, 0) >= 0) continue;
    if (errno != ENOBUFS && errno != EAGAIN && errno != EINTR) return errno;
  }
  return 0;
}

absl::Status ReadTun(const TunDevice& tun, BackendChoice choice, const OffloadCase& of,
                     DurationNs time_ns, TunFigure& figure) {
  auto rig = MakeRig(choice);
  if (!rig.ok()) return rig.status();
  if (absl::Status s = rig->backend->AddTun(tun.queues[0].get()); !s.ok()) return s;
  auto injector = OpenInjector();
  if (!injector.ok()) return injector.status();
  const std::vector<uint8_t> packet = BuildPacket(of, Checksum::kPartial);
  std::atomic<bool> stop{false};
  int error = 0;
  std::thread sender([&] {
    PinTo(AffinityOfThisProcess().back());
    error = Inject(injector->get(), packet, stop);
  });
  DatagramCounter counter;
  rig->backend->Poll(kPollNs, counter);
  counter = {};
  const TimeNs start_ns = MonotonicNowNs();
  while (MonotonicNowNs() - start_ns < time_ns) rig->backend->Poll(kPollNs, counter);
  const DurationNs took_ns = MonotonicNowNs() - start_ns;
  stop = true;
  sender.join();
  if (error != 0) return absl::ErrnoToStatus(error, "packet sockets do not take such a packet");
  figure.packets_per_s = PerSecond(counter.packets, took_ns);
  figure.bytes_per_s = PerSecond(counter.bytes, took_ns);
  if (counter.packets > 0) figure.packet_bytes = counter.bytes / counter.packets;
  return absl::OkStatus();
}

absl::Status WriteTun(const TunDevice& tun, BackendChoice choice, const OffloadCase& of,
                      DurationNs time_ns, TunFigure& figure) {
  auto rig = MakeRig(choice);
  if (!rig.ok()) return rig.status();
  if (absl::Status s = rig->backend->AddTun(tun.queues[0].get()); !s.ok()) return s;
  // Where datagrams end up; nobody reads them, so that the kernel drops what is more than fits.
  auto sink = OpenUdp({.address = Address("10.99.0.1"), .port = kDiscardPort});
  if (!sink.ok()) return sink.status();
  const Checksum checksum = of.offloads.checksum ? Checksum::kPartial : Checksum::kWhole;
  std::vector<uint8_t> packet = BuildPacket(of, checksum);
  const iovec part{packet.data(), packet.size()};
  std::array<WriteRequest, kBatch> requests;
  uint64_t packets = 0;
  const TimeNs start_ns = MonotonicNowNs();
  while (MonotonicNowNs() - start_ns < time_ns) {
    for (WriteRequest& request : requests) {
      request = {tun.queues[0].get(), {&part, 1}, 0};
      rig->backend->Write(request);
    }
    rig->backend->Flush();
    for (const WriteRequest& request : requests) {
      if (request.error == 0) {
        ++packets;
      } else if (request.error != EAGAIN) {
        return absl::ErrnoToStatus(request.error, "TUN does not take such a packet");
      }
    }
  }
  const DurationNs took_ns = MonotonicNowNs() - start_ns;
  figure.packet_bytes = packet.size() - kVnetHeaderBytes;
  figure.packets_per_s = PerSecond(packets, took_ns);
  figure.bytes_per_s = PerSecond(packets * figure.packet_bytes, took_ns);
  return absl::OkStatus();
}

absl::Status MeasureTunCase(const OffloadCase& of, bool read, BackendChoice choice,
                            DurationNs time_ns, TunFigure& figure) {
  auto tun = OpenTun(kTunName, 1, /*want_offloads=*/false);
  if (!tun.ok()) return tun.status();
  if (!SetTunOffloads(tun->queues[0].get(), of.offloads)) {
    return absl::UnimplementedError("this kernel's TUN does not have it");
  }
  absl::Status status = BringUpDevice(kTunName, *IpPrefix::Parse("10.99.0.1/24"));
  if (!status.ok()) return status;
  return (read ? ReadTun : WriteTun)(*tun, choice, of, time_ns, figure);
}

std::vector<TunFigure> MeasureTun(const DeviceArguments& arguments, BenchProgress& progress) {
  std::vector<TunFigure> figures;
  for (const OffloadCase& of : kOffloadCases) {
    for (const BackendChoice choice : Backends()) {
      for (const bool read : {true, false}) {
        TunFigure figure;
        figure.way = read ? "read" : "write";
        figure.offload = of.name;
        figure.backend = NameOf(choice);
        progress.Step(
            absl::StrFormat("TUN %s, %s, %s", figure.way, figure.offload, figure.backend));
        // A namespace each: what one leaves in queues is not the next one's burden.
        const auto network = NetworkNamespace::Create();
        absl::Status status = network.status();
        if (status.ok()) {
          status = network->Run([&] {
            PinTo(AffinityOfThisProcess().front());
            return MeasureTunCase(of, read, choice, arguments.time_ns(), figure);
          });
        }
        figure.refused = std::string(status.message());
        figures.push_back(std::move(figure));
      }
    }
  }
  return figures;
}

// --- UDP ---

enum class UdpMode { kPlain, kSendmmsg, kGso, kGsoGro };
constexpr std::pair<UdpMode, const char*> kUdpModes[] = {{UdpMode::kPlain, "plain"},
                                                         {UdpMode::kSendmmsg, "sendmmsg"},
                                                         {UdpMode::kGso, "GSO"},
                                                         {UdpMode::kGsoGro, "GSO, GRO"}};

// Both send for `time_ns` and give how many datagrams the kernel has taken.
absl::StatusOr<uint64_t> SendThroughBackend(const UdpSocket& from, const Endpoint& to,
                                            BackendChoice choice, bool segmented,
                                            DurationNs time_ns) {
  auto rig = MakeRig(choice);
  if (!rig.ok()) return rig.status();
  if (absl::Status s = rig->backend->AddSocket(from.fd.get(), 0); !s.ok()) return s;
  const size_t segments = segmented ? kSuperSegments : 1;
  const size_t requests_per_flush = segmented ? 4 : 1;
  const std::vector<uint8_t> payload(segments * kDatagramBytes, 0x5a);
  std::array<SendRequest, 4> requests;
  uint64_t sent = 0;
  const TimeNs start_ns = MonotonicNowNs();
  while (MonotonicNowNs() - start_ns < time_ns) {
    for (size_t i = 0; i < requests_per_flush; ++i) {
      requests[i] = {};
      requests[i].fd = from.fd.get();
      requests[i].to = to;
      requests[i].payload = payload;
      requests[i].datagram_bytes = kDatagramBytes;
      rig->backend->Send(requests[i]);
    }
    rig->backend->Flush();
    for (size_t i = 0; i < requests_per_flush; ++i) {
      if (requests[i].segmentation_refused) {
        return absl::UnimplementedError("the device behind the route does not segment");
      }
      if (requests[i].error == 0) sent += segments;
    }
  }
  return sent;
}

absl::StatusOr<uint64_t> SendByMmsg(const UdpSocket& from, const Endpoint& to, DurationNs time_ns) {
  std::vector<uint8_t> payload(kDatagramBytes, 0x5a);
  sockaddr_storage address;
  const socklen_t length = to.To(address);
  iovec part{payload.data(), payload.size()};
  std::array<mmsghdr, kBatch> messages{};
  for (mmsghdr& message : messages) {
    message.msg_hdr.msg_name = &address;
    message.msg_hdr.msg_namelen = length;
    message.msg_hdr.msg_iov = &part;
    message.msg_hdr.msg_iovlen = 1;
  }
  uint64_t sent = 0;
  const TimeNs start_ns = MonotonicNowNs();
  while (MonotonicNowNs() - start_ns < time_ns) {
    const int taken = sendmmsg(from.fd.get(), messages.data(), kBatch, MSG_DONTWAIT);
    if (taken > 0) sent += static_cast<uint64_t>(taken);
  }
  return sent;
}

absl::Status MeasureUdpCase(const UdpSocket& from, const UdpSocket& to, UdpMode mode,
                            BackendChoice choice, DurationNs time_ns, UdpFigure& figure) {
  auto rig = MakeRig(choice);
  if (!rig.ok()) return rig.status();
  if (absl::Status s = rig->backend->AddSocket(to.fd.get(), 0); !s.ok()) return s;
  std::atomic<bool> sending{true};
  absl::StatusOr<uint64_t> sent = uint64_t{0};
  const TimeNs start_ns = MonotonicNowNs();
  TimeNs sent_ns = start_ns;
  std::thread sender([&] {
    PinTo(AffinityOfThisProcess().back());
    sent = mode == UdpMode::kSendmmsg
               ? SendByMmsg(from, to.local, time_ns)
               : SendThroughBackend(from, to.local, choice, mode != UdpMode::kPlain, time_ns);
    sent_ns = MonotonicNowNs();
    sending = false;
  });
  DatagramCounter counter;
  while (sending) rig->backend->Poll(kPollNs, counter);
  sender.join();
  if (!sent.ok()) return sent.status();
  // What waits in the socket came in the same time.
  for (uint64_t before = ~uint64_t{0}; before != counter.packets;) {
    before = counter.packets;
    rig->backend->Poll(kPollNs, counter);
  }
  const DurationNs took_ns = MonotonicNowNs() - start_ns;
  figure.sent_per_s = PerSecond(*sent, sent_ns - start_ns);
  figure.received_per_s = PerSecond(counter.packets, took_ns);
  figure.bytes_per_s = PerSecond(counter.bytes, took_ns);
  return absl::OkStatus();
}

struct UdpLink {
  const char* name;
  const NetworkNamespace& from;
  const NetworkNamespace& to;
  IpAddress from_address;
  IpAddress to_address;
};

absl::StatusOr<UdpSocket> OpenIn(const NetworkNamespace& in, const IpAddress& address,
                                 bool coalesce) {
  absl::StatusOr<UdpSocket> opened = absl::UnknownError("");
  absl::Status status = in.Run([&] {
    opened = OpenUdp({.address = address, .coalesce = coalesce});
    return opened.status();
  });
  if (!status.ok()) return status;
  return opened;
}

absl::Status MeasureUdpLink(const UdpLink& link, UdpMode mode, BackendChoice choice,
                            DurationNs time_ns, UdpFigure& figure) {
  const bool coalesce = mode == UdpMode::kGsoGro;
  auto from = OpenIn(link.from, link.from_address, false);
  auto to = OpenIn(link.to, link.to_address, coalesce);
  if (!from.ok()) return from.status();
  if (!to.ok()) return to.status();
  const bool needs_gso = mode == UdpMode::kGso || mode == UdpMode::kGsoGro;
  if (needs_gso && !from->gso) return absl::UnimplementedError("no UDP_SEGMENT");
  if (coalesce && !to->gro) return absl::UnimplementedError("no UDP_GRO");
  absl::Status status;
  std::thread([&] {
    PinTo(AffinityOfThisProcess().front());
    status = MeasureUdpCase(*from, *to, mode, choice, time_ns, figure);
  }).join();
  return status;
}

absl::StatusOr<std::vector<UdpFigure>> MeasureUdp(const DeviceArguments& arguments,
                                                  BenchProgress& progress) {
  auto near = NetworkNamespace::Create();
  if (!near.ok()) return near.status();
  auto far = NetworkNamespace::Create();
  if (!far.ok()) return far.status();
  absl::Status status = JoinByVeth({*near, "far", *IpPrefix::Parse("10.99.1.1/24")},
                                   {*far, "near", *IpPrefix::Parse("10.99.1.2/24")}, 1500);
  if (!status.ok()) return status;
  const UdpLink links[] = {
      {"loopback", *near, *near, Address("127.0.0.1"), Address("127.0.0.1")},
      {"veth", *near, *far, Address("10.99.1.1"), Address("10.99.1.2")},
  };
  std::vector<UdpFigure> figures;
  for (const UdpLink& link : links) {
    for (const auto& [mode, name] : kUdpModes) {
      for (const BackendChoice choice : Backends()) {
        UdpFigure figure;
        figure.link = link.name;
        figure.mode = name;
        figure.backend = NameOf(choice);
        progress.Step(absl::StrFormat("UDP %s, %s, %s", figure.link, figure.mode, figure.backend));
        const absl::Status done = MeasureUdpLink(link, mode, choice, arguments.time_ns(), figure);
        figure.refused = std::string(done.message());
        figures.push_back(std::move(figure));
      }
    }
  }
  return figures;
}

// --- All of it ---

// What the daemon would be granted here.
std::vector<std::string> Notes(int max_gso_datagrams) {
  std::vector<std::string> notes;
  const auto network = NetworkNamespace::Create();
  if (!network.ok()) return notes;
  network
      ->Run([&notes]() -> absl::Status {
        const auto tun = OpenTun(kTunName, 1, /*want_offloads=*/true);
        if (!tun.ok()) return tun.status();
        const TunOffloads& granted = tun->offloads;
        std::string text = "TUN grants";
        if (granted.checksum) text += " CSUM";
        if (granted.tso) text += " TSO";
        if (granted.uso) text += " USO";
        notes.push_back(granted.checksum ? text : "TUN grants no offload");
        if (!granted.uso) notes.emplace_back("TUN refuses USO, which Linux has since 6.2");
        return absl::OkStatus();
      })
      .IgnoreError();
  notes.push_back(absl::StrFormat("a segmented send holds up to %d datagrams", max_gso_datagrams));
  for (const BackendChoice choice : Backends()) {
    absl::Status status;
    std::thread([&] { status = MakeRig(choice).status(); }).join();
    if (!status.ok()) {
      notes.push_back(NameOf(choice) + " is refused: " + std::string(status.message()));
    }
  }
  return notes;
}

int BenchDevice(const DeviceArguments& arguments) {
  // Says at once what is missing.
  if (const auto network = NetworkNamespace::Create(); !network.ok()) {
    return Fail("bench device", network.status());
  }
  DeviceReport report;
  utsname system{};
  uname(&system);
  report.kernel = system.release;
  report.datagram_bytes = kDatagramBytes;
  report.max_gso_datagrams = ProbeMaxGsoDatagrams();
  report.notes = Notes(report.max_gso_datagrams);
  {
    const size_t steps =
        Backends().size() * (std::size(kOffloadCases) * 2 + std::size(kUdpModes) * 2);
    BenchProgress progress(static_cast<int>(steps));
    report.tun = MeasureTun(arguments, progress);
    auto udp = MeasureUdp(arguments, progress);
    if (!udp.ok()) return Fail("bench device", udp.status());
    report.udp = *std::move(udp);
  }
  return PrintReport(report, arguments.json);
}

}  // namespace

void AddBenchDeviceCommand(CLI::App& bench, int& exit_code) {
  CLI::App* command = bench.add_subcommand(
      "device", "What this kernel's TUN and UDP do, offload by offload (needs root)");
  const auto arguments = std::make_shared<DeviceArguments>();
  command->add_option("--seconds", arguments->seconds, "How long each measurement takes")
      ->check(Between(0.01, 60))
      ->type_name("SECONDS")
      ->capture_default_str();
  command->add_flag("--json", arguments->json, "Print JSON");
  command->callback([arguments, &exit_code] { exit_code = BenchDevice(*arguments); });
}

}  // namespace braid
