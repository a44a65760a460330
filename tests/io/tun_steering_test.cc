// The program that the kernel runs to pick a TUN queue, against the hash that the workers compute.
// The kernel itself runs it here (BPF_PROG_TEST_RUN), which needs CAP_BPF.
#include "io/tun_steering.h"

#include <errno.h>
#include <gtest/gtest.h>
#include <linux/bpf.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <unistd.h>

#include <array>

#include "base/flow_hash.h"
#include "io/tun.h"
#include "io/vnet_header.h"
#include "support/network.h"
#include "support/packets.h"

namespace braid::tun_steering_test {
namespace {

using testing::Below;
using testing::Buffer;
using testing::BuildPacket;
using testing::PacketSpec;
using testing::PaddingExtension;
using testing::Random;
using testing::RandomBytes;

// An Ethernet header, which the kernel takes off before a socket filter sees the packet, so that
// offset 0 is the IP header, as in TUN. Its type is one that nothing looks into.
constexpr size_t kEthernetBytes = 14;
constexpr uint16_t kLocalExperimental = 0x88b5;

// What the program returns for the packet.
uint32_t RunInKernel(const UniqueFd& program, Bytes packet) {
  Buffer frame(kEthernetBytes);
  StoreBe16(&frame[12], kLocalExperimental);
  frame.insert(frame.end(), packet.begin(), packet.end());
  bpf_attr attributes{};
  attributes.test.prog_fd = static_cast<uint32_t>(program.get());
  attributes.test.data_in = reinterpret_cast<uint64_t>(frame.data());
  attributes.test.data_size_in = static_cast<uint32_t>(frame.size());
  attributes.test.repeat = 1;
  const long result = syscall(SYS_bpf, BPF_PROG_TEST_RUN, &attributes, sizeof(attributes));
  EXPECT_EQ(result, 0) << "the kernel does not run the program: " << strerror(errno) << ", "
                       << packet.size() << " bytes";
  return attributes.test.retval;
}

uint32_t Expected(Bytes packet, int lanes, int queues) {
  return FlowHash(packet) % static_cast<uint32_t>(lanes) % static_cast<uint32_t>(queues);
}

class TunSteeringTest : public ::testing::Test {
 protected:
  void Load(int lanes, int queues) {
    lanes_ = lanes;
    queues_ = queues;
    auto program = LoadLaneSteering(lanes, queues);
    ASSERT_TRUE(program.ok()) << program.status() << " (this test needs root or CAP_BPF)";
    program_ = std::move(*program);
  }

  void ExpectSame(Bytes packet) {
    ASSERT_EQ(RunInKernel(program_, packet), Expected(packet, lanes_, queues_))
        << ::testing::PrintToString(Buffer(packet.begin(), packet.end()));
  }

  int lanes_ = 0;
  int queues_ = 0;
  UniqueFd program_;
};

PacketSpec RandomSpec(Random& random) {
  PacketSpec spec;
  spec.v6 = Below(random, 2) == 0;
  constexpr uint8_t kProtocols[] = {6, 17, 132, 1, 58, 47, 50, 0, 255};
  spec.protocol = kProtocols[Below(random, std::size(kProtocols))];
  spec.source_host = static_cast<uint8_t>(random());
  spec.destination_host = static_cast<uint8_t>(random());
  spec.source_port = static_cast<uint16_t>(random());
  spec.destination_port = static_cast<uint16_t>(random());
  spec.fragment_field = Below(random, 3) == 0 ? static_cast<uint16_t>(random()) : 0x4000;
  if (Below(random, 3) == 0) spec.ip_options = RandomBytes(random, Below(random, 11) * 4);
  if (Below(random, 3) == 0) {
    spec.extensions = {{testing::kDestinationOptions, PaddingExtension()}};
  }
  spec.payload = RandomBytes(random, 8 + Below(random, 60));
  return spec;
}

// All 32 bits of the hash, where lanes and queues take nothing away.
TEST_F(TunSteeringTest, ComputesTheWholeHash) {
  Load(0x7fffffff, 0x7fffffff);
  Random random(1);
  for (int i = 0; i < 4000; ++i) {
    ExpectSame(BuildPacket(RandomSpec(random)));
    if (HasFatalFailure()) return;
  }
}

TEST_F(TunSteeringTest, PicksTheQueueOfTheWorkerThatOwnsTheLane) {
  Random random(2);
  for (const int lanes : {1, 2, 15, 16, 128}) {
    for (const int queues : {1, 2, 3, 8, 64}) {
      Load(lanes, queues);
      for (int i = 0; i < 200; ++i) {
        const Buffer packet = BuildPacket(RandomSpec(random));
        ASSERT_LT(RunInKernel(program_, packet), static_cast<uint32_t>(queues));
        ExpectSame(packet);
        if (HasFatalFailure()) return;
      }
    }
  }
}

TEST_F(TunSteeringTest, AgreesOnEveryProtocol) {
  Load(0x7fffffff, 0x7fffffff);
  for (int protocol = 0; protocol < 256; ++protocol) {
    for (const bool v6 : {false, true}) {
      PacketSpec spec;
      spec.v6 = v6;
      spec.protocol = static_cast<uint8_t>(protocol);
      spec.payload = {1, 2, 3, 4, 5, 6, 7, 8};
      ExpectSame(BuildPacket(spec));
    }
  }
}

TEST_F(TunSteeringTest, AgreesOnTruncatedPackets) {
  Load(0x7fffffff, 0x7fffffff);
  for (const bool v6 : {false, true}) {
    for (const size_t option_bytes : {0, 4, 40}) {
      PacketSpec spec;
      spec.v6 = v6;
      spec.ip_options.resize(option_bytes, 1);
      const Buffer packet = BuildPacket(spec);
      // The kernel refuses to run it over nothing at all.
      for (size_t bytes = 1; bytes <= packet.size(); ++bytes)
        ExpectSame(Bytes(packet).first(bytes));
    }
  }
}

TEST_F(TunSteeringTest, AgreesOnBytesThatAreNoPacket) {
  Load(0x7fffffff, 0x7fffffff);
  Random random(3);
  for (int i = 0; i < 4000; ++i) {
    Buffer bytes = RandomBytes(random, 1 + Below(random, 80));
    if (i % 2 == 0) bytes[0] = static_cast<uint8_t>(0x40 | Below(random, 16));
    ExpectSame(bytes);
    if (HasFatalFailure()) return;
  }
}

// The kernel stops verifying a program when a signal comes.
TEST_F(TunSteeringTest, LoadsWhileSignalsArrive) {
  struct sigaction ignore_alarm {};
  struct sigaction before {};
  ignore_alarm.sa_handler = [](int) {};
  ASSERT_EQ(sigaction(SIGALRM, &ignore_alarm, &before), 0);
  constexpr itimerval kEvery2Ms{{0, 2000}, {0, 2000}};
  ASSERT_EQ(setitimer(ITIMER_REAL, &kEvery2Ms, nullptr), 0);
  int loaded = 0;
  for (int i = 0; i < 200; ++i) loaded += LoadLaneSteering(16, 2).ok();
  constexpr itimerval kNever{};
  setitimer(ITIMER_REAL, &kNever, nullptr);
  sigaction(SIGALRM, &before, nullptr);
  EXPECT_EQ(loaded, 200);
}

TEST_F(TunSteeringTest, IsTakenByADevice) {
  Load(16, 2);
  testing::InFreshNetwork([this] {
    auto tun = OpenTun("steer0", 2, true);
    ASSERT_TRUE(tun.ok()) << tun.status();
    const absl::Status attached = AttachLaneSteering(tun->queues[0].get(), program_.get());
    EXPECT_TRUE(attached.ok()) << attached;
    EXPECT_FALSE(AttachLaneSteering(tun->queues[0].get(), tun->queues[1].get()).ok());
  });
}

// Through the device itself: each flow comes out of the queue that the hash names.
TEST_F(TunSteeringTest, SteersRealTraffic) {
  constexpr int kQueues = 3;
  Load(16, kQueues);
  testing::InFreshNetwork([this] {
    auto tun = OpenTun("steer0", kQueues, true);
    ASSERT_TRUE(tun.ok()) << tun.status();
    ASSERT_TRUE(AttachLaneSteering(tun->queues[0].get(), program_.get()).ok());
    ASSERT_TRUE(testing::AddIpv4("steer0", *IpPrefix::Parse("10.77.0.1/24")));
    ASSERT_TRUE(testing::BringUp("steer0"));
    std::array<int, kQueues> received{};
    for (uint16_t flow = 0; flow < 200; ++flow) {
      const UniqueFd fd(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
      sockaddr_storage address;
      const Endpoint to{*IpAddress::Parse("10.77.0.2"), static_cast<uint16_t>(1000 + flow)};
      const socklen_t length = to.To(address);
      ASSERT_EQ(sendto(fd.get(), "x", 1, 0, reinterpret_cast<sockaddr*>(&address), length), 1);
      for (uint32_t queue = 0; queue < kQueues; ++queue) {
        std::array<uint8_t, 2048> from_tun;
        ssize_t bytes;
        while ((bytes = read(tun->queues[queue].get(), from_tun.data(), from_tun.size())) > 0) {
          const Bytes packet = Bytes(from_tun).subspan(
              kVnetHeaderBytes, static_cast<size_t>(bytes) - kVnetHeaderBytes);
          EXPECT_EQ(queue, Expected(packet, 16, kQueues));
          if (packet[0] >> 4 == 4) ++received[queue];
        }
      }
    }
    for (const int packets : received) EXPECT_GT(packets, 20);
  });
}

}  // namespace
}  // namespace braid::tun_steering_test
