// The responder and a client on loopback, and clients that mean no good.
#include "slowpath/measure_responder.h"

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/post.hpp>
#include <future>
#include <optional>
#include <thread>

#include "slowpath/measure_channel.h"
#include "slowpath/measure_client.h"
#include "slowpath/measure_socket.h"

namespace braid::measure_responder_test {
namespace {

constexpr double kShortSeconds = 0.05;
constexpr char kOwnKey[] = "TR5cfnlgDJyAqDSP2vo9wsJvHcUlqAuFF9zhk7C1VGI=";

IpAddress Loopback() { return *IpAddress::Parse("127.0.0.1"); }

uint16_t FreePort() {
  const auto fd = ListenForTcp({Loopback(), 0}, "", 1);
  return LocalEndpoint(fd->get()).port;
}

MeasurePlan Plan(LoadKind load, bool up = false, bool down = false) {
  MeasurePlan plan;
  plan.load = load;
  plan.up = up;
  plan.down = down;
  plan.seconds = kShortSeconds;
  plan.flows = 2;
  plan.datagram_bytes = 200;
  plan.rate_mbps = 1;
  return plan;
}

class MeasureResponderTest : public ::testing::Test {
 protected:
  ~MeasureResponderTest() override {
    OnItsThread([this] { responder_.reset(); });
    work_.reset();
    thread_.join();
  }

  // Nothing takes long to arrive here.
  static MeasureResponderOptions Options() {
    MeasureResponderOptions options;
    options.public_key = kOwnKey;
    options.allows = [](const IpAddress&) { return true; };
    options.session_limits.settle_ns = 20 * kMillisecondNs;
    return options;
  }

  void Start(MeasureResponderOptions options = Options()) {
    options.addresses = {Loopback()};
    options.port = at_.port;
    OnItsThread([&] {
      responder_.emplace(io_, std::move(options));
      ASSERT_TRUE(responder_->Listen().ok());
    });
  }

  void OnItsThread(const std::function<void()>& body) {
    std::promise<void> done;
    boost::asio::post(io_, [&] {
      body();
      done.set_value();
    });
    done.get_future().wait();
  }

  UniqueFd Connect() const {
    auto fd = ConnectTcp(at_, "", MonotonicNowNs() + 2 * kSecondNs, -1);
    EXPECT_TRUE(fd.ok()) << fd.status();
    return fd.ok() ? *std::move(fd) : UniqueFd();
  }

  // The first line that comes; nothing when the connection ends, or five seconds have passed.
  static std::optional<MeasureLine> Answer(MeasureChannel& channel) {
    const TimeNs until_ns = MonotonicNowNs() + 5 * kSecondNs;
    while (MonotonicNowNs() < until_ns) {
      auto line = channel.Next();
      if (!line.ok()) return std::nullopt;
      if (line->has_value()) return **std::move(line);
      pollfd polled{channel.fd(), POLLIN, 0};
      poll(&polled, 1, 50);
    }
    return std::nullopt;
  }

  // Whether the other end closes the connection without another word.
  static bool Ends(MeasureChannel& channel) {
    const TimeNs until_ns = MonotonicNowNs() + 10 * kSecondNs;
    while (MonotonicNowNs() < until_ns) {
      const auto line = channel.Next();
      if (!line.ok()) return absl::IsUnavailable(line.status());
      if (line->has_value()) return false;
      pollfd polled{channel.fd(), POLLIN, 0};
      poll(&polled, 1, 50);
    }
    return false;
  }

  std::string RefusalOf(const std::string& bytes) const {
    UniqueFd fd = Connect();
    send(fd.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
    MeasureChannel channel(std::move(fd));
    const auto answer = Answer(channel);
    const auto* refused = answer ? std::get_if<MeasureRefused>(&*answer) : nullptr;
    return refused == nullptr ? "" : refused->code;
  }

  absl::StatusOr<MeasureResult> MeasureIt(const MeasurePlan& plan) const {
    return Measure({at_, "", kOwnKey}, plan);
  }

  const Endpoint at_{Loopback(), FreePort()};
  boost::asio::io_context io_{1};
  std::optional<boost::asio::executor_work_guard<boost::asio::io_context::executor_type>> work_{
      boost::asio::make_work_guard(io_)};
  std::thread thread_{[this] { io_.run(); }};
  std::optional<MeasureResponder> responder_;
};

TEST_F(MeasureResponderTest, MeasuresLatencyOfAnIdleWay) {
  Start();
  const auto result = MeasureIt(Plan(LoadKind::kIdle));
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_GT(result->latency.probes_sent, 0u);
  EXPECT_GT(result->latency.probes_answered, 0u);
  EXPECT_LE(result->latency.probes_answered, result->latency.probes_sent);
  EXPECT_LE(result->latency.min_ms, result->latency.p50_ms);
  EXPECT_LE(result->latency.p50_ms, result->latency.p99_ms);
  EXPECT_LE(result->latency.p99_ms, result->latency.max_ms);
}

TEST_F(MeasureResponderTest, MeasuresTcpInTheDirectionThatIsAskedFor) {
  Start();
  for (const auto& [up, down] : {std::pair(true, false), {false, true}, {true, true}}) {
    const auto result = MeasureIt(Plan(LoadKind::kTcp, up, down));
    ASSERT_TRUE(result.ok()) << result.status();
    EXPECT_EQ(result->up.mbps > 0, up);
    EXPECT_EQ(result->down.mbps > 0, down);
  }
}

TEST_F(MeasureResponderTest, CountsTheDatagramsOfBothDirections) {
  Start();
  const auto result = MeasureIt(Plan(LoadKind::kUdp, true, true));
  ASSERT_TRUE(result.ok()) << result.status();
  for (const DirectionResult* each : {&result->up, &result->down}) {
    EXPECT_GT(each->datagrams_sent, 0u);
    EXPECT_LE(each->datagrams_sent, 625u * kShortSeconds + 1);  // of 1 Mbit/s
    EXPECT_EQ(each->datagrams_received + each->datagrams_lost, each->datagrams_sent);
    EXPECT_EQ(each->datagrams_doubled, 0u);
  }
}

TEST_F(MeasureResponderTest, TellsHowItGoes) {
  Start();
  MeasurePlan plan = Plan(LoadKind::kTcp, true, false);
  plan.seconds = 1;
  std::vector<int> seconds;
  MeasureHooks hooks;
  hooks.on_second = [&](const MeasureProgress& progress) { seconds.push_back(progress.second); };
  ASSERT_TRUE(Measure({at_, "", ""}, plan, hooks).ok());
  EXPECT_EQ(seconds, std::vector<int>{1});
}

TEST_F(MeasureResponderTest, OneAtATime) {
  Start();
  MeasureChannel first(Connect());
  ASSERT_TRUE(first.Send(MeasureRequest{Plan(LoadKind::kTcp, true, false), 9}).ok());
  const auto answer = Answer(first);
  ASSERT_TRUE(answer && std::holds_alternative<MeasureAccepted>(*answer));
  const auto second = MeasureIt(Plan(LoadKind::kIdle));
  EXPECT_TRUE(absl::IsResourceExhausted(second.status())) << second.status();
}

TEST_F(MeasureResponderTest, WhoIsNoPeerGetsNoWord) {
  MeasureResponderOptions options = Options();
  options.allows = [](const IpAddress&) { return false; };
  Start(std::move(options));
  EXPECT_EQ(RefusalOf("hello\n"), "");
  EXPECT_FALSE(MeasureIt(Plan(LoadKind::kIdle)).ok());
}

TEST_F(MeasureResponderTest, AnotherMachineThanThePeerIsNotMeasured) {
  Start();
  const auto result = Measure({at_, "", "another key"}, Plan(LoadKind::kIdle));
  EXPECT_TRUE(absl::IsFailedPrecondition(result.status())) << result.status();
}

TEST_F(MeasureResponderTest, NobodyThereIsUnavailable) {
  const auto result = MeasureIt(Plan(LoadKind::kIdle));
  EXPECT_TRUE(absl::IsUnavailable(result.status())) << result.status();
}

TEST_F(MeasureResponderTest, GarbageIsRefusedAndOthersAreServed) {
  Start();
  const std::string request = RenderMeasureLine(MeasureRequest{Plan(LoadKind::kIdle), 9});
  EXPECT_EQ(RefusalOf("hello\n"), "bad_request");
  EXPECT_EQ(RefusalOf("\n"), "bad_request");
  EXPECT_EQ(RefusalOf(std::string(kMaxMeasureLineBytes + 1, 'x')), "bad_request");
  EXPECT_EQ(RefusalOf(request + "and more"), "bad_request");
  EXPECT_EQ(RefusalOf(RenderMeasureLine(MeasureGo())), "bad_request");
  EXPECT_EQ(RefusalOf(RenderMeasureLine(MeasureStream{"no such token", 0})), "");
  EXPECT_TRUE(MeasureIt(Plan(LoadKind::kIdle)).ok());
}

TEST_F(MeasureResponderTest, ConnectionsThatSayNothingAreBounded) {
  Start();
  std::vector<UniqueFd> silent;
  for (size_t i = 0; i < kMaxMeasureOpenings + 5; ++i) {
    silent.push_back(Connect());
    OnItsThread([] {});  // it takes what is there, so the kernel's queue does not overflow
    if (i % 2 == 0) send(silent.back().get(), "{\"v\":1", 6, MSG_NOSIGNAL);
  }
  MeasureChannel last(std::move(silent.back()));
  const auto answer = Answer(last);
  ASSERT_TRUE(answer && std::holds_alternative<MeasureRefused>(*answer));
  EXPECT_EQ(std::get<MeasureRefused>(*answer).code, "busy");
  // When they have gone it is somebody else's turn.
  silent.clear();
  const TimeNs until_ns = MonotonicNowNs() + 10 * kSecondNs;
  while (!MeasureIt(Plan(LoadKind::kIdle)).ok()) ASSERT_LT(MonotonicNowNs(), until_ns);
}

TEST_F(MeasureResponderTest, ConnectionsThatSayNothingEnd) {
  MeasureResponderOptions options = Options();
  options.opening_within_ns = 50 * kMillisecondNs;
  Start(std::move(options));
  MeasureChannel nothing(Connect());
  EXPECT_TRUE(Ends(nothing));
  MeasureChannel half(Connect());
  send(half.fd(), "{\"v\":1", 6, MSG_NOSIGNAL);
  EXPECT_TRUE(Ends(half));
}

TEST_F(MeasureResponderTest, AClientThatGoesAwayEndsItsMeasurement) {
  Start();
  {
    MeasurePlan plan = Plan(LoadKind::kTcp, true, true);
    plan.seconds = kMaxMeasureSeconds;
    MeasureChannel channel(Connect());
    ASSERT_TRUE(channel.Send(MeasureRequest{plan, 9}).ok());
    const auto answer = Answer(channel);
    ASSERT_TRUE(answer && std::holds_alternative<MeasureAccepted>(*answer));
    EXPECT_EQ(RefusalOf(RenderMeasureLine(MeasureRequest{Plan(LoadKind::kIdle), 9})), "busy");
  }
  const TimeNs until_ns = MonotonicNowNs() + 10 * kSecondNs;
  while (!MeasureIt(Plan(LoadKind::kIdle)).ok()) ASSERT_LT(MonotonicNowNs(), until_ns);
}

TEST_F(MeasureResponderTest, AClientThatStallsIsGivenUp) {
  MeasureResponderOptions options = Options();
  options.session_limits.streams_within_ns = 100 * kMillisecondNs;
  Start(std::move(options));
  MeasureChannel channel(Connect());
  ASSERT_TRUE(channel.Send(MeasureRequest{Plan(LoadKind::kTcp, true, false), 9}).ok());
  const auto answer = Answer(channel);
  ASSERT_TRUE(answer && std::holds_alternative<MeasureAccepted>(*answer));
  // Its streams never come.
  EXPECT_TRUE(Ends(channel));
  EXPECT_TRUE(MeasureIt(Plan(LoadKind::kIdle)).ok());
}

TEST_F(MeasureResponderTest, ClosingEndsAMeasurementAtOnceAndTheClientTellsWhatThereWas) {
  Start();
  MeasurePlan plan = Plan(LoadKind::kTcp, true, true);
  plan.seconds = kMaxMeasureSeconds;
  std::promise<void> running;
  std::optional<MeasureResult> result;
  MeasureHooks hooks;
  hooks.on_cut_short = [&](const MeasureResult& until_then) { result = until_then; };
  hooks.on_second = [&](const MeasureProgress& progress) {
    if (progress.second == 1) running.set_value();
  };
  auto measured = std::async([&] { return Measure({at_, "", ""}, plan, hooks); });
  running.get_future().wait();
  OnItsThread([this] { responder_->Close(); });
  EXPECT_TRUE(absl::IsAborted(measured.get().status()));
  ASSERT_TRUE(result);
  EXPECT_GT(result->plan.seconds, 0);
  EXPECT_LT(result->plan.seconds, kMaxMeasureSeconds);
  EXPECT_GT(result->up.mbps, 0);
  EXPECT_GT(result->down.mbps, 0);
}

TEST_F(MeasureResponderTest, TheClientStopsWhenItIsToldAndTellsWhatThereWas) {
  Start();
  MeasurePlan plan = Plan(LoadKind::kUdp, true, true);
  plan.seconds = kMaxMeasureSeconds;
  const UniqueFd stop(eventfd(0, EFD_CLOEXEC));
  std::optional<MeasureResult> result;
  MeasureHooks hooks;
  hooks.stop_fd = stop.get();
  hooks.on_second = [&](const MeasureProgress&) { eventfd_write(stop.get(), 1); };
  hooks.on_cut_short = [&](const MeasureResult& until_then) { result = until_then; };
  EXPECT_TRUE(absl::IsCancelled(Measure({at_, "", ""}, plan, hooks).status()));
  ASSERT_TRUE(result);
  EXPECT_GT(result->plan.seconds, 0);
  EXPECT_LT(result->plan.seconds, kMaxMeasureSeconds);
  EXPECT_GT(result->latency.probes_answered, 0u);
  for (const DirectionResult* each : {&result->up, &result->down}) {
    EXPECT_GT(each->mbps, 0);
    EXPECT_GT(each->datagrams_received, 0u);
    // What is under way when it ends is not lost.
    EXPECT_EQ(each->datagrams_lost, 0u);
  }
}

TEST_F(MeasureResponderTest, WhoIsStoppedBeforeThereWasSomethingTellsNothing) {
  Start();
  const UniqueFd stop(eventfd(1, EFD_CLOEXEC));
  MeasureHooks hooks;
  hooks.stop_fd = stop.get();
  hooks.on_cut_short = [](const MeasureResult&) { ADD_FAILURE(); };
  const auto result = Measure({at_, "", ""}, Plan(LoadKind::kIdle), hooks);
  EXPECT_TRUE(absl::IsCancelled(result.status())) << result.status();
}

}  // namespace
}  // namespace braid::measure_responder_test
