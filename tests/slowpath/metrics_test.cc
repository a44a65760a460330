// What is given out, of which peers, and that the documentation, the dashboard and the alerts speak
// of nothing else.
#include "slowpath/metrics.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <boost/asio/buffer.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/write.hpp>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <regex>
#include <set>
#include <sstream>

#include "slowpath/health_watch.h"
#include "slowpath/path_commands.h"
#include "support/network.h"
#include "support/packets.h"
#include "support/status_rig.h"
#include "support/test_keys.h"

namespace braid::metrics_test {
namespace {

namespace asio = boost::asio;
using prometheus::ClientMetric;
using prometheus::MetricFamily;
using prometheus::MetricType;
using testing::Await;
using testing::StatusRig;

const MetricInfo* FindInfo(const std::string& name) {
  const auto found = std::find_if(std::begin(kMetrics), std::end(kMetrics),
                                  [&](const MetricInfo& info) { return info.name == name; });
  return found == std::end(kMetrics) ? nullptr : found;
}

std::set<std::string> LabelsOf(const MetricInfo& info) {
  std::istringstream words{std::string(info.labels)};
  return {std::istream_iterator<std::string>(words), {}};
}

// As the text has it: by name and labels.
using Samples = std::map<std::string, double>;

Samples Collect(const StatusSources& sources) {
  const HealthInputs health = HealthWatch().See(sources, "");
  std::istringstream text(RenderMetrics(CollectMetrics(sources, health)));
  Samples samples;
  for (std::string line; std::getline(text, line);) {
    if (line.starts_with('#')) continue;
    const size_t end = line.rfind(' ');
    const bool is_new =
        samples.emplace(line.substr(0, end), std::stod(line.substr(end + 1))).second;
    EXPECT_TRUE(is_new) << "given twice: " << line;
  }
  return samples;
}

Samples Collect(const StatusRig& rig) { return Collect(rig.sources()); }

// The names of those that are about this peer, or any.
std::set<std::string> NamesAbout(const Samples& samples, const std::string& peer,
                                 const std::string& label = "peer") {
  std::set<std::string> names;
  for (const auto& [series, value] : samples) {
    if (series.find(label + "=\"" + peer) != series.npos) {
      names.insert(series.substr(0, series.find('{')));
    }
  }
  return names;
}

TEST(Metrics, AreCalledAsPrometheusWantsThem) {
  std::set<std::string> names;
  for (const MetricInfo& info : kMetrics) {
    const std::string name(info.name);
    EXPECT_TRUE(names.insert(name).second) << name;
    EXPECT_TRUE(name.starts_with("braid_") || name.starts_with("process_")) << name;
    EXPECT_EQ(name.ends_with("_total"), info.type == MetricType::Counter) << name;
    EXPECT_FALSE(info.meaning.empty()) << name;
    EXPECT_TRUE(std::regex_match(name, std::regex("[a-z]+(_[a-z]+)+"))) << name;
    EXPECT_FALSE(std::regex_search(name, std::regex("_(ms|us|ns|kb|mb|mbps|percent)(_|$)")))
        << name;
    for (const std::string& label : LabelsOf(info)) {
      EXPECT_TRUE(std::set<std::string>({"version", "mode", "io", "aead", "component", "worker",
                                         "direction", "reason", "peer", "path", "outcome", "group",
                                         "upstream"})
                      .contains(label))
          << name << " " << label;
    }
  }
  // OpenMetrics calls a counter without its "_total".
  for (const std::string& name : names) {
    EXPECT_FALSE(names.contains(name + "_total")) << name;
  }
}

TEST(Metrics, AFamilyIsWhatTheListSaysAndNoneIsEmpty) {
  testing::InFreshNetwork([] {
    StatusRig rig(Role::kClient, 1, 2);
    rig.far[0]->Start();
    rig.Run(3 * kSecondNs);
    const auto families = CollectMetrics(rig.sources(), HealthWatch().See(rig.sources(), ""));
    EXPECT_GT(families.size(), 30u);
    const MetricInfo* last = nullptr;
    for (const MetricFamily& family : families) {
      const MetricInfo* info = FindInfo(family.name);
      ASSERT_NE(info, nullptr) << family.name;
      EXPECT_GT(info, last) << "not in the order of the list: " << family.name;
      last = info;
      EXPECT_EQ(family.type, info->type);
      EXPECT_EQ(family.help, info->meaning);
      EXPECT_FALSE(family.metric.empty()) << family.name;
      for (const ClientMetric& metric : family.metric) {
        std::set<std::string> labels;
        for (const auto& label : metric.label) labels.insert(label.name);
        EXPECT_EQ(labels, LabelsOf(*info)) << family.name;
      }
    }
  });
}

TEST(Metrics, ShowTheDaemonAndItsClientPaths) {
  testing::InFreshNetwork([] {
    StatusRig rig(Role::kClient, 2, 2);
    rig.far[0]->Start();
    rig.Run(3 * kSecondNs);
    rig.warnings = {"a", "b"};
    rig.stray_drops.Count(Drop::inbox_full, 5);
    const Samples samples = Collect(rig);
    const std::string build = std::string("braid_build_info{version=\"") + BRAID_VERSION +
                              "\",mode=\"client\",io=\"" +
                              std::string(rig.workers.group.backend_name()) + "\",aead=\"";
    EXPECT_EQ(std::count_if(samples.begin(), samples.end(),
                            [&](const auto& sample) {
                              return sample.first.starts_with(build) && sample.second == 1;
                            }),
              1);
    EXPECT_EQ(samples.at("braid_warnings"), 2);
    EXPECT_EQ(samples.at("braid_device_mtu_bytes"), 1400);
    EXPECT_EQ(samples.at("braid_health{component=\"workers\"}"), 0);
    EXPECT_EQ(samples.at("braid_health{component=\"connectivity\"}"), 1) << "one server is missing";
    EXPECT_EQ(samples.at("braid_peers"), 2);
    EXPECT_EQ(samples.at("braid_sessions"), 1);
    EXPECT_EQ(samples.at("braid_peer_established{peer=\"peer0\"}"), 1);
    EXPECT_EQ(samples.at("braid_peer_established{peer=\"peer1\"}"), 0);
    EXPECT_EQ(samples.at("braid_handshakes_completed_total"), 1);
    EXPECT_GE(samples.at("braid_handshakes_timed_out_total"), 1);
    EXPECT_NEAR(samples.at("braid_peer_last_handshake_timestamp_seconds{peer=\"peer0\"}"),
                static_cast<double>(WallNowNs()) / kSecondNs - 3, 3);
    EXPECT_EQ(samples.count("braid_peer_last_handshake_timestamp_seconds{peer=\"peer1\"}"), 0u);
    for (const char* path : {"link0", "link1"}) {
      const std::string labels = std::string("{peer=\"peer0\",path=\"") + path + "\"}";
      EXPECT_EQ(samples.at("braid_path_up" + labels), 1);
      EXPECT_NEAR(samples.at("braid_path_rtt_seconds" + labels), 0.02, 0.01);
      EXPECT_GE(samples.at("braid_path_mtu_bytes" + labels), 1280);
      EXPECT_EQ(samples.at(std::string("braid_path_up{peer=\"peer1\",path=\"") + path + "\"}"), 0);
    }
    for (const std::string_view reason : kDropNames) {
      EXPECT_TRUE(samples.contains("braid_drops_total{reason=\"" + std::string(reason) + "\"}"));
    }
    EXPECT_EQ(samples.at("braid_drops_total{reason=\"inbox_full\"}"), 5);
    EXPECT_EQ(samples.at("braid_drops_total{reason=\"tun_queue_full\"}"), 2);
    EXPECT_EQ(samples.at("braid_drops_total{reason=\"socket_queue_full\"}"), 3);
    EXPECT_GT(samples.at("process_resident_memory_bytes"), 1e6);
    EXPECT_GT(samples.at("process_open_fds"), 10);
    EXPECT_GT(samples.at("braid_worker_busy_seconds_total{worker=\"1\"}"), 0);
  });
}

TEST(Metrics, AWorkerThatHangsIsSeen) {
  testing::InFreshNetwork([] {
    StatusRig rig(Role::kServer, 1);
    ASSERT_TRUE(rig.workers.group.Stop());
    rig.workers.group.Tell({});  // it was given one command less than it has carried out: to stop
    rig.workers.group.AskForLife(rig.network.now_ns());
    for (int i = 0; i < 3; ++i) EXPECT_TRUE(rig.workers.group.HandPacket(1, {}));
    rig.Run(5 * kSecondNs);
    const Samples samples = Collect(rig);
    EXPECT_EQ(samples.at("braid_worker_silent_seconds{worker=\"1\"}"), 5);
    EXPECT_EQ(samples.at("braid_worker_inbox_commands{worker=\"1\"}"), 2);
    EXPECT_EQ(samples.at("braid_worker_inbox_packets{worker=\"0\"}"), 0);
    EXPECT_EQ(samples.at("braid_worker_inbox_packets{worker=\"1\"}"), 3);
    EXPECT_EQ(samples.at("braid_health{component=\"workers\"}"), 2);
  });
}

// Packets of peer 0, sealed as it would.
class Traffic {
 public:
  explicit Traffic(StatusRig& rig)
      : keys_(testing::MakeKeypair(1, rig.near.options.aeads[Cipher::kChaCha20Poly1305])),
        socket_(OpenUdp({IpAddress::Parse("127.0.0.1").value(), 0, "", false, false}).value()),
        to_(rig.config.tunnel.listen[0]) {
    for (Keypair* one : {&keys_.client, &keys_.server}) {
      one->seal_until_ns = one->open_until_ns = MonotonicNowNs() + 300 * kSecondNs;
    }
    const RouteTable::Route owned[] = {{IpPrefix::Parse("10.77.0.2/32").value(), 0}};
    rig.workers.group.SetRoutes(std::make_unique<RouteTable>(owned));
    rig.workers.group.Tell(
        {.type = Command::Type::kAddKeypair, .peer = 0, .keypair = &keys_.server});
    rig.workers.group.Tell(
        {.type = Command::Type::kSetPath, .peer = 0, .route = {socket_.local, {}, 0}});
    testing::PacketSpec spec = testing::SpecOf(false, testing::kUdp, 100);
    std::swap(spec.source_host, spec.destination_host);
    inner_ = BuildPacket(spec);
  }

  void Send(size_t packets) {
    for (size_t i = 0; i < packets; ++i) {
      testing::Buffer datagram(inner_.size() + kSealOverheadBytes);
      ASSERT_FALSE(sender_.Prepare(keys_.client, 0, MonotonicNowNs()));
      sender_.Seal(Kind::kData, 0, 0, inner_, datagram.data());
      SendDatagram(socket_.fd.get(), to_, {}, datagram);
    }
  }
  size_t inner_bytes() const { return inner_.size(); }

 private:
  testing::KeypairOfBothEnds keys_;
  UdpSocket socket_;
  const Endpoint to_;
  LaneSender sender_;
  testing::Buffer inner_;
};

TEST(Metrics, CountWhatPeersSendAndNoneGoesDownWhenASessionEndsAndTheNextBegins) {
  testing::InFreshNetwork([] {
    PrepareAeadThread();
    StatusRig rig(Role::kServer, 2);
    Traffic traffic(rig);
    rig.far[0]->Start();
    rig.Run(2 * kSecondNs);
    constexpr char kPackets[] = "braid_peer_packets_total{peer=\"peer0\",direction=\"receive\"}";
    traffic.Send(20);
    EXPECT_TRUE(Await([&] { return Collect(rig).at(kPackets) == 20; }));
    const Samples first = Collect(rig);
    const double inner_bytes = 20.0 * static_cast<double>(traffic.inner_bytes());
    EXPECT_EQ(first.at("braid_peer_bytes_total{peer=\"peer0\",direction=\"receive\"}"),
              inner_bytes);
    EXPECT_EQ(first.at("braid_peer_bytes_total{peer=\"peer0\",direction=\"transmit\"}"), 0);
    const std::string path = "{peer=\"peer0\",path=\"path0\",direction=\"receive\"}";
    EXPECT_EQ(first.at("braid_path_datagrams_total" + path), 20);
    EXPECT_EQ(first.at("braid_path_bytes_total" + path), inner_bytes + 20 * kSealOverheadBytes);
    const auto of_workers = [](const Samples& samples, const std::string& name) {
      return samples.at(name + "{worker=\"0\",direction=\"receive\"}") +
             samples.at(name + "{worker=\"1\",direction=\"receive\"}");
    };
    EXPECT_EQ(of_workers(first, "braid_worker_packets_total"), 20);
    EXPECT_EQ(of_workers(first, "braid_worker_bytes_total"), inner_bytes);

    rig.far[0]->Close();
    rig.Run(kSecondNs);
    const Samples ended = Collect(rig);
    EXPECT_EQ(ended.at("braid_peer_established{peer=\"peer0\"}"), 0);
    EXPECT_EQ(ended.at("braid_sessions"), 0);
    rig.far[0]->Start();
    rig.Run(2 * kSecondNs);
    traffic.Send(5);
    EXPECT_TRUE(Await([&] { return Collect(rig).at(kPackets) == 25; }));
    const Samples again = Collect(rig);
    EXPECT_EQ(again.at("braid_peer_established{peer=\"peer0\"}"), 1);
    EXPECT_EQ(again.at("braid_handshakes_completed_total"), 2);
    for (const auto& [before, after] : {std::pair(first, ended), std::pair(ended, again)}) {
      for (const auto& [series, value] : before) {
        if (series.find("_total") == series.npos) continue;
        ASSERT_TRUE(after.contains(series)) << series;
        EXPECT_GE(after.at(series), value) << series;
      }
    }
    ASSERT_TRUE(rig.workers.group.Stop());  // before the keys go
  });
}

TEST(Metrics, AServersPeerIsThereFromItsFirstSessionOn) {
  testing::InFreshNetwork([] {
    StatusRig rig(Role::kServer, 3);
    EXPECT_TRUE(NamesAbout(Collect(rig), "").empty());
    rig.far[1]->Start();
    rig.Run(2 * kSecondNs);
    const std::set<std::string> names = NamesAbout(Collect(rig), "peer1");
    EXPECT_TRUE(names.contains("braid_path_up"));
    EXPECT_EQ(NamesAbout(Collect(rig), ""), names);
    EXPECT_EQ(Collect(rig).at("braid_peers"), 3);
    rig.far[1]->Close();
    rig.Run(kSecondNs);
    EXPECT_TRUE(NamesAbout(Collect(rig), "peer1").contains("braid_peer_established"));
  });
}

TEST(Metrics, OfVeryManyPeersEachHasOnlyAFewOrNone) {
  EXPECT_EQ(DetailFor(0), PeerDetail::kAll);
  EXPECT_EQ(DetailFor(kMaxPeersInDetail), PeerDetail::kAll);
  EXPECT_EQ(DetailFor(kMaxPeersInDetail + 1), PeerDetail::kFew);
  EXPECT_EQ(DetailFor(kMaxPeersByName), PeerDetail::kFew);
  EXPECT_EQ(DetailFor(kMaxPeersByName + 1), PeerDetail::kNone);
  testing::InFreshNetwork([] {
    StatusRig rig(Role::kServer, kMaxPeersInDetail + 1);
    rig.far[7]->Start();
    rig.Run(2 * kSecondNs);
    std::set<std::string> few;
    for (const Metric metric : kOfEachPeer) {
      few.emplace(kMetrics[static_cast<size_t>(metric)].name);
    }
    EXPECT_EQ(NamesAbout(Collect(rig), ""), few);
    EXPECT_EQ(Collect(rig).at("braid_sessions"), 1);
  });
}

TEST(Metrics, NamesMayHoldAnything) {
  testing::InFreshNetwork([] {
    StatusRig rig(Role::kClient, 1);
    auto& peer = const_cast<Peer&>(*rig.near.peers().all()[0]);
    peer.config.name = "a\"b\\c\nd";
    EXPECT_TRUE(Collect(rig).contains(R"(braid_peer_established{peer="a\"b\\c\nd"})"));
    peer.config.name = "Zür\xffich";
    EXPECT_TRUE(Collect(rig).contains("braid_peer_established{peer=\"Zür\xef\xbf\xbdich\"}"));
  });
}

TEST(Metrics, OfAQuotaWhatIsUsedAndWhatThereIs) {
  testing::InFreshNetwork([] {
    StatusRig rig(Role::kClient, 1);
    rig.config.tunnel.paths[0].quota = QuotaConfig{.bytes = 5'000'000'000};
    rig.client_paths.emplace(rig.config);
    rig.FollowPaths([](const PathConfig&) { return BindingChoice{}; });
    rig.quotas.Of("link0", *rig.config.tunnel.paths[0].quota).Count(1234);
    const Samples samples = Collect(rig);
    EXPECT_EQ(samples.at("braid_path_quota_used_bytes{path=\"link0\"}"), 1234);
    EXPECT_EQ(samples.at("braid_path_quota_limit_bytes{path=\"link0\"}"), 5e9);
  });
}

// --- Upstreams ---

// A SOCKS5 server that grants all that it is asked for, and connects nowhere.
class GrantingServer {
 public:
  explicit GrantingServer(asio::io_context& io)
      : acceptor_(io, {asio::ip::address_v4::loopback(), 0}) {
    Accept();
  }
  uint16_t port() const { return acceptor_.local_endpoint().port(); }

 private:
  static constexpr size_t kGreetingBytes = 3;
  struct Client {
    asio::ip::tcp::socket socket;
    std::array<uint8_t, 64> bytes;
  };

  void Accept() {
    acceptor_.async_accept([this](boost::system::error_code error, asio::ip::tcp::socket socket) {
      if (error) return;
      Serve(std::make_shared<Client>(Client{std::move(socket), {}}));
      Accept();
    });
  }
  static void Serve(const std::shared_ptr<Client>& client) {
    client->socket.async_read_some(
        asio::buffer(client->bytes), [client](boost::system::error_code error, size_t got) {
          if (error) return;
          const std::array<uint8_t, 10> granted = {5, 0, 0, 1};
          const size_t answer_bytes = got == kGreetingBytes ? 2 : granted.size();
          asio::write(client->socket, asio::buffer(granted.data(), answer_bytes), error);
          Serve(client);
        });
  }

  asio::ip::tcp::acceptor acceptor_;
};

// Groups, without the flows that a worker would tell of.
class GroupsRig {
 public:
  explicit GroupsRig(StatusRig& rig) : rig_(rig), server_(io_) {
    char name[] = "/tmp/braid-metrics-XXXXXX";
    folder_ = mkdtemp(name);
    EgressFlowsOptions options;
    options.max_sessions = 16;
    options.max_udp_sessions = 16;
    options.mailboxes = rig.workers.group.mailboxes();
    for (const UniqueFd& queue : rig.workers.device.queues) {
      options.tun_queues.push_back(queue.get());
    }
    options.slow_path = &slow_path_;
    options.name_servers = [] { return std::vector{IpAddress::Parse("192.0.2.1").value()}; };
    options.on_news = [](std::string_view, const nlohmann::ordered_json&) {};
    flows_ = EgressFlows::Open(io_, std::move(options)).value();
  }
  ~GroupsRig() { std::filesystem::remove_all(folder_); }

  void Use(const std::vector<UpstreamGroupConfig>& configs) {
    auto groups = flows_->OpenGroups(configs);
    ASSERT_TRUE(groups.ok()) << groups.status();
    flows_->SetConfig(*std::move(groups), {});
  }
  const UpstreamGroup& group(size_t index) const { return *flows_->groups()[index]; }

  void StartRelays() { flows_->Start(); }
  // As a worker that has read the packet.
  void Relay(const EgressAction& action, const testing::Buffer& packet) {
    EgressDatagrams& to = *flows_->WorkerOptions()[0].datagrams[0];
    const auto* record = reinterpret_cast<const uint8_t*>(&action);
    const testing::Buffer from_tun = testing::BehindVnetHeader({}, packet);
    EXPECT_TRUE(to.packets[0]->TryPush({record, sizeof(action)}, from_tun));
    to.doorbell.Ring();
  }
  // What the relays have told of.
  void TakeEvents() {
    Event event;
    while (slow_path_.events.TryPop(event)) flows_->OnEvent(event);
  }

  template <typename Condition>
  void Until(Condition&& condition) {
    for (int i = 0; i < 10'000 && !condition(); ++i) io_.run_one_for(std::chrono::seconds(1));
    EXPECT_TRUE(condition());
  }
  // What comes of a flow through the group.
  Dialed Dial(size_t group) {
    std::optional<Dialed> dialed;
    flows_->groups()[group]->Open({IpAddress::Parse("192.0.2.80").value(), "", 80},
                                  [&](Dialed one) { dialed = std::move(one); });
    Until([&] { return dialed.has_value(); });
    return *std::move(dialed);
  }

  Samples samples() const {
    StatusSources sources = rig_.sources();
    sources.egress = flows_.get();
    return Collect(sources);
  }

  static HostPort At(uint16_t port) {
    return {"127.0.0.1", port, IpAddress::Parse("127.0.0.1").value()};
  }
  HostPort server() const { return At(server_.port()); }
  std::string PasswordFile() const {
    const std::string path = folder_ + "/password";
    std::ofstream(path) << "password";
    EXPECT_EQ(chmod(path.c_str(), 0600), 0);
    return path;
  }

 private:
  StatusRig& rig_;
  std::string folder_;
  SlowPathMailbox slow_path_;
  asio::io_context io_;
  GrantingServer server_;
  std::unique_ptr<EgressFlows> flows_;
};

UpstreamGroupConfig GroupOf(const std::string& name, const HostPort& upstream) {
  UpstreamGroupConfig group;
  group.name = name;
  group.upstreams.push_back({.address = upstream});
  return group;
}

TEST(Metrics, OfEachUpstreamHowItIsAndWhatWentThroughIt) {
  testing::InFreshNetwork([] {
    StatusRig rig(Role::kClient, 1);
    GroupsRig groups(rig);
    UpstreamGroupConfig works = GroupOf("works", groups.server());
    works.pool = WarmPoolOptions{.initial = 2, .max = 2};
    UpstreamGroupConfig broken = GroupOf("broken", GroupsRig::At(1));
    broken.upstreams.push_back({.address = GroupsRig::At(1),
                                .username = "somebody",
                                .password_file = groups.PasswordFile()});
    broken.choice.breaker = {.failures = 1, .open_ns = 3600 * kSecondNs};
    UpstreamGroupConfig tries = GroupOf("tries", GroupsRig::At(2));
    tries.choice.breaker = {.failures = 1, .open_ns = 1};
    tries.pool = WarmPoolOptions{.initial = 100};
    groups.Use({works, broken, tries});

    const auto is_warm = [&] { return groups.group(0).figures()[0].pool_idle == 2; };
    groups.Until(is_warm);
    std::optional<Dialed> flow = groups.Dial(0);
    EXPECT_EQ(flow->verdict, TcpVerdict::Type::kOpen);
    groups.Until(is_warm);
    EXPECT_NE(groups.Dial(1).verdict, TcpVerdict::Type::kOpen);
    EXPECT_NE(groups.Dial(2).verdict, TcpVerdict::Type::kOpen);
    groups.Until([&] {
      const auto of_broken = groups.group(1).figures();
      return !of_broken[0].choice.up && !of_broken[1].choice.up;
    });

    const Samples samples = groups.samples();
    const auto value = [&](const std::string& name, const std::string& labels) {
      const auto found = samples.find("braid_egress_" + name + "{" + labels + "}");
      EXPECT_NE(found, samples.end()) << name << " " << labels;
      return found == samples.end() ? -1 : found->second;
    };
    const std::string of_works =
        "group=\"works\",upstream=\"" + DescribeEndpoint(groups.server()) + "\"";
    EXPECT_EQ(value("upstream_up", of_works), 1);
    EXPECT_EQ(value("upstream_breaker_open", of_works), 0);
    EXPECT_EQ(value("upstream_open_flows", of_works), 1);
    EXPECT_EQ(value("upstream_flows_total", of_works + ",outcome=\"begun\""), 1);
    EXPECT_EQ(value("upstream_flows_total", of_works + ",outcome=\"failed\""), 0);
    EXPECT_GT(value("upstream_latency_seconds", of_works), 0);
    EXPECT_LT(value("upstream_latency_seconds", of_works), 10);
    EXPECT_EQ(value("pool_idle_connections", of_works), 2);
    EXPECT_EQ(value("pool_target_connections", of_works), 2);
    EXPECT_EQ(value("pool_taken_total", of_works), 1);
    EXPECT_EQ(value("pool_empty_total", of_works), 0);
    EXPECT_EQ(value("pool_expired_total", of_works), 0);
    EXPECT_EQ(value("pool_stale_total", of_works), 0);
    // Two users of one server.
    for (const std::string name : {"127.0.0.1:1", "somebody@127.0.0.1:1"}) {
      const std::string labels = "group=\"broken\",upstream=\"" + name + "\"";
      EXPECT_EQ(value("upstream_up", labels), 0);
      EXPECT_EQ(value("upstream_breaker_open", labels), 1);
      EXPECT_EQ(value("upstream_open_flows", labels), 0);
      EXPECT_EQ(value("upstream_flows_total", labels + ",outcome=\"begun\""), 1);
      EXPECT_EQ(value("upstream_flows_total", labels + ",outcome=\"failed\""), 1);
    }
    EXPECT_FALSE(
        NamesAbout(samples, "broken", "group").contains("braid_egress_upstream_latency_seconds"))
        << "nobody knows";
    EXPECT_FALSE(
        NamesAbout(samples, "broken", "group").contains("braid_egress_pool_idle_connections"))
        << "it has no pool";
    const std::string of_tries = "group=\"tries\",upstream=\"127.0.0.1:2\"";
    EXPECT_EQ(value("upstream_breaker_open", of_tries), 0.5);
    EXPECT_EQ(value("pool_idle_connections", of_tries), 0);
    EXPECT_EQ(value("pool_target_connections", of_tries), 100);
    EXPECT_EQ(value("pool_taken_total", of_tries), 0);
    EXPECT_EQ(value("pool_empty_total", of_tries), 1);

    flow.reset();
    groups.Until([&] { return groups.group(0).figures()[0].choice.open == 0; });
    const Samples ended = groups.samples();
    EXPECT_EQ(ended.at("braid_egress_upstream_open_flows{" + of_works + "}"), 0);
    EXPECT_EQ(ended.at("braid_egress_upstream_flows_total{" + of_works + ",outcome=\"begun\"}"), 1);
    ASSERT_TRUE(rig.workers.group.Stop());
  });
}

// --- Datagrams past the tunnel ---

TEST(Metrics, OfDatagramsPastTheTunnelWhatWasCarriedAndWhatWasLost) {
  testing::InFreshNetwork([] {
    StatusRig rig(Role::kClient, 1);
    GroupsRig groups(rig);
    groups.StartRelays();
    // The device's own address stands for the world.
    const auto far = OpenUdp({IpAddress::Parse("10.77.0.1").value(), 0, "", false, false}).value();
    testing::PacketSpec spec = testing::SpecOf(false, testing::kUdp, 100);
    spec.source_host = 2;
    spec.destination_host = 1;
    spec.destination_port = far.local.port;
    EgressAction direct, to_group;
    direct.to = EgressAction::To::kDirect;
    to_group.to = EgressAction::To::kGroup;
    const auto value = [&](const std::string& series) {
      return groups.samples().at("braid_egress_udp_" + series);
    };
    const auto lost = [&](const std::string& reason) {
      return value("lost_total{reason=\"" + reason + "\"}");
    };

    groups.Relay(direct, BuildPacket(spec));
    testing::Buffer datagram(200);
    Arrival arrival{};
    size_t got = 0;
    ASSERT_TRUE(Await([&] {
      if (got == 0) got = ReceiveDatagram(far.fd.get(), datagram, arrival);
      return got == 100;
    }));
    SendDatagram(far.fd.get(), arrival.source, {}, Bytes(datagram).first(40));
    ASSERT_TRUE(Await([&] { return value("bytes_total{direction=\"receive\"}") == 40; }));
    EXPECT_EQ(value("datagrams_total{direction=\"receive\"}"), 1);
    EXPECT_EQ(value("datagrams_total{direction=\"transmit\"}"), 1);
    EXPECT_EQ(value("bytes_total{direction=\"transmit\"}"), 100);

    testing::Buffer damaged = BuildPacket(spec);
    damaged.back() ^= 1;
    groups.Relay(direct, damaged);
    EXPECT_TRUE(Await([&] { return lost("malformed") == 1; }));
    // There is no such group.
    groups.Relay(to_group, BuildPacket(spec));
    EXPECT_TRUE(Await([&] {
      groups.TakeEvents();
      return lost("not_waiting") == 1;
    }));
    for (const char* reason : {"fragment", "too_big", "unsent"}) EXPECT_EQ(lost(reason), 0);
    EXPECT_EQ(value("open_sessions"), 2);
    EXPECT_EQ(value("sessions_total{outcome=\"begun\"}"), 2);
    EXPECT_EQ(value("sessions_total{outcome=\"refused\"}"), 1);
    EXPECT_EQ(value("sessions_total{outcome=\"expired\"}"), 0);
    EXPECT_EQ(value("sessions_total{outcome=\"evicted\"}"), 0);
    // Of eight sources each has a place; what others need is taken from them.
    for (uint16_t port = 1000; port < 1010; ++port) {
      spec.source_port = port;
      groups.Relay(direct, BuildPacket(spec));
    }
    EXPECT_TRUE(Await([&] { return value("sessions_total{outcome=\"begun\"}") == 12; }));
    EXPECT_TRUE(Await([&] { return value("sessions_total{outcome=\"evicted\"}") == 4; }));
    EXPECT_TRUE(Await([&] { return value("open_sessions") == 8; }));
    ASSERT_TRUE(rig.workers.group.Stop());
  });
}

TEST(Metrics, OfVeryManyUpstreamsEachHasOnlyAFew) {
  testing::InFreshNetwork([] {
    StatusRig rig(Role::kClient, 1);
    GroupsRig groups(rig);
    std::vector<UpstreamGroupConfig> configs;
    for (size_t upstream = 0; upstream <= kMaxUpstreamsInDetail; ++upstream) {
      const HostPort at{"server" + std::to_string(upstream), 1080, {}};
      if (upstream % UpstreamChoice::kMaxUpstreams != 0) {
        configs.back().upstreams.push_back({.address = at});
      } else {
        configs.push_back(GroupOf("group" + std::to_string(upstream), at));
      }
    }
    groups.Use(configs);
    std::set<std::string> few;
    for (const Metric metric : kOfEachUpstream) {
      few.emplace(kMetrics[static_cast<size_t>(metric)].name);
    }
    EXPECT_EQ(NamesAbout(groups.samples(), "server0:1080", "upstream"), few);
    configs.back().upstreams.pop_back();
    groups.Use(configs);
    EXPECT_GT(NamesAbout(groups.samples(), "server0:1080", "upstream").size(), few.size());
    ASSERT_TRUE(rig.workers.group.Stop());
  });
}

TEST(Metrics, TypesStandInTheText) {
  testing::InFreshNetwork([] {
    StatusRig rig(Role::kServer, 1);
    const std::string text =
        RenderMetrics(CollectMetrics(rig.sources(), HealthWatch().See(rig.sources(), "")));
    EXPECT_NE(text.find("# TYPE braid_peers gauge\nbraid_peers 1\n"), std::string::npos);
  });
}

// --- What others say of them ---

std::string ReadFile(const std::string& path) {
  std::ifstream file(path);
  EXPECT_TRUE(file) << path << " cannot be read (tests run in the folder of the sources)";
  return {std::istreambuf_iterator<char>(file), {}};
}

std::string TypeName(MetricType type) { return type == MetricType::Counter ? "counter" : "gauge"; }

TEST(Metrics, AreDocumentedAsTheyAre) {
  std::istringstream text(ReadFile("docs/monitoring.md"));
  std::vector<std::string> rows;
  const std::regex row(R"(\| `((braid|process)_\w+)` \|.*)");
  for (std::string line; std::getline(text, line);) {
    if (std::regex_match(line, row)) rows.push_back(line);
  }
  std::vector<std::string> wanted;
  for (const MetricInfo& info : kMetrics) {
    const std::string labels(info.labels);
    wanted.push_back("| `" + std::string(info.name) + "` | " + TypeName(info.type) + " | " +
                     std::regex_replace(labels, std::regex(" "), ", ") + " | " +
                     std::string(info.meaning) + " |");
  }
  EXPECT_EQ(rows, wanted);
}

TEST(Metrics, EachReasonOfADropIsDocumentedAsItIs) {
  std::istringstream text(ReadFile("docs/monitoring.md"));
  std::vector<std::string> rows;
  for (std::string line; std::getline(text, line);) {
    if (std::regex_match(line, std::regex(R"(\| `(?!braid_|process_)\w+` \| [^|]+ \|)"))) {
      rows.push_back(line);
    }
  }
  const std::vector<std::string> wanted = {
#define X(name, meaning) "| `" #name "` | " meaning " |",
      BRAID_DROP_REASONS(X)
#undef X
  };
  EXPECT_EQ(rows, wanted);
}

// Metrics and labels that an expression of PromQL speaks of.
void CheckExpression(const std::string& text, const std::string& where) {
  const std::regex use(R"(\b((?:braid|process)_[a-z_]+)\b(?:\{([^}]*)\})?)");
  const std::regex matcher(R"((\w+)\s*(?:=~|!~|!=|=))");
  std::set<std::string> known = {"instance", "job"};
  for (std::sregex_iterator it(text.begin(), text.end(), use), end; it != end; ++it) {
    const MetricInfo* info = FindInfo((*it)[1]);
    ASSERT_NE(info, nullptr) << where << ": there is no metric " << (*it)[1];
    std::set<std::string> labels = LabelsOf(*info);
    labels.insert({"instance", "job"});
    known.insert(labels.begin(), labels.end());
    const std::string matchers = (*it)[2];
    for (std::sregex_iterator m(matchers.begin(), matchers.end(), matcher); m != end; ++m) {
      EXPECT_TRUE(labels.contains((*m)[1])) << where << ": " << (*it)[1] << " has no " << (*m)[1];
    }
  }
  const std::regex grouping(R"(\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\))");
  const std::regex word(R"(\w+)");
  for (std::sregex_iterator it(text.begin(), text.end(), grouping), end; it != end; ++it) {
    const std::string labels = (*it)[1];
    for (std::sregex_iterator w(labels.begin(), labels.end(), word); w != end; ++w) {
      EXPECT_TRUE(known.contains(w->str())) << where << ": nothing there has " << w->str();
    }
  }
}

void ForEachExpression(const nlohmann::json& json,
                       const std::function<void(const nlohmann::json& target)>& look) {
  if (json.is_object() && json.contains("expr")) look(json);
  if (json.is_structured()) {
    for (const auto& part : json) ForEachExpression(part, look);
  }
}

TEST(Metrics, TheDashboardAsksForNothingElse) {
  const auto dashboard = nlohmann::json::parse(ReadFile("etc/grafana/braid.json"));
  size_t expressions = 0;
  std::set<int> ids;
  for (const auto& panel : dashboard.at("panels")) {
    EXPECT_TRUE(ids.insert(panel.at("id").get<int>()).second) << "two panels have one id";
    if (panel.at("type") == "row") continue;
    EXPECT_EQ(panel.at("datasource").at("uid"), "${datasource}") << panel.at("title");
    std::set<std::string> refs;
    for (const auto& target : panel.at("targets")) {
      EXPECT_TRUE(refs.insert(target.at("refId").get<std::string>()).second) << panel.at("title");
    }
  }
  ForEachExpression(dashboard, [&](const nlohmann::json& target) {
    ++expressions;
    const auto expression = target.at("expr").get<std::string>();
    CheckExpression(expression, "etc/grafana/braid.json");
    EXPECT_NE(expression.find("$instance"), std::string::npos) << expression;
  });
  EXPECT_GT(expressions, 20u);
  for (const auto& variable : dashboard.at("templating").at("list")) {
    if (variable.at("type") == "query") {
      CheckExpression(variable.at("definition").get<std::string>(), "a variable of the dashboard");
    }
  }
}

TEST(Metrics, TheAlertsAskForNothingElse) {
  // Expressions and what is said about them alike.
  const std::string text = ReadFile("etc/prometheus/alerts.yml");
  CheckExpression(text, "etc/prometheus/alerts.yml");
  std::set<std::string> labels = {"instance", "job"};
  for (const MetricInfo& info : kMetrics) labels.merge(LabelsOf(info));
  const std::regex shown(R"(\$labels\.(\w+))");
  for (std::sregex_iterator it(text.begin(), text.end(), shown), end; it != end; ++it) {
    EXPECT_TRUE(labels.contains((*it)[1])) << (*it)[1];
  }
}

}  // namespace
}  // namespace braid::metrics_test
