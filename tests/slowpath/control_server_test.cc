#include "slowpath/control_server.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include <atomic>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/post.hpp>
#include <filesystem>
#include <fstream>
#include <future>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "slowpath/control_client.h"

namespace braid::control_server_test {
namespace {

using nlohmann::json;
using namespace std::chrono_literals;

constexpr auto kPatience = 5s;  // what no test takes unless it fails

// A client that says what it likes, byte for byte.
class RawClient {
 public:
  explicit RawClient(const std::string& path) : fd_(socket(AF_UNIX, SOCK_STREAM, 0)) {
    sockaddr_un address;
    EXPECT_TRUE(FillControlAddress(path, address).ok());
    EXPECT_EQ(connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  }
  ~RawClient() {
    if (fd_ >= 0) close(fd_);
  }
  RawClient(RawClient&& other) : fd_(std::exchange(other.fd_, -1)) {}

  // False when the server has hung up.
  bool Send(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t sent = send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (sent < 0) return false;
      bytes.remove_prefix(static_cast<size_t>(sent));
    }
    return true;
  }

  // The next line, or "" at the end of the connection or of patience.
  std::string ReadLine() {
    std::string line;
    char c;
    while (Readable(kPatience) && recv(fd_, &c, 1, 0) == 1) {
      if (c == '\n') return line;
      line += c;
    }
    return "";
  }

  json ReadReply() { return json::parse(ReadLine(), nullptr, false); }
  std::string ReadCode() { return ReadReply().value("/error/code"_json_pointer, ""); }

  bool IsClosed() {
    char c;
    return Readable(kPatience) && recv(fd_, &c, 1, 0) <= 0;
  }
  bool IsSilentFor(std::chrono::milliseconds time) { return !Readable(time); }
  void EndRequests() { shutdown(fd_, SHUT_WR); }

 private:
  bool Readable(std::chrono::milliseconds patience) {
    pollfd wait{.fd = fd_, .events = POLLIN, .revents = 0};
    return poll(&wait, 1, static_cast<int>(patience.count())) == 1;
  }

  int fd_;
};

class ControlServerTest : public ::testing::Test {
 protected:
  ControlServerTest() {
    char name[] = "/tmp/braid-control-XXXXXX";
    directory_ = mkdtemp(name);
    path_ = directory_ + "/braid.sock";
  }

  ~ControlServerTest() override {
    if (thread_.joinable()) {
      OnLoop([this] { server_.reset(); });
      work_.reset();
      io_.stop();
      thread_.join();
    }
    std::filesystem::remove_all(directory_);
  }

  void Start(ControlServerOptions options = {}) {
    auto server = Listen(options);
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    thread_ = std::thread([this] { io_.run(); });
  }

  absl::StatusOr<std::unique_ptr<ControlServer>> Listen(ControlServerOptions options = {}) {
    return ControlServer::Listen(
        io_, path_, [this](auto verb, const auto& params) { return Handle(verb, params); },
        options);
  }

  ControlResult Handle(std::string_view verb, const json& params) {
    ++handled_;
    if (verb == "echo") return ToJsonText(params);
    if (verb == "big") return ToJsonText(json(std::string(params.at("size"), 'x')));
    if (verb == "wait" && handled_ < 3) {
      return ControlError{.code = ControlCode::kConflict, .message = "taken", .ask_again = true};
    }
    if (verb == "wait") return "{}";
    if (verb == "throw") throw std::runtime_error("secret");
    if (verb == "close") {
      server_->Close();
      return "{}";
    }
    if (verb == "stop") {  // as a daemon does: agree first, go later
      boost::asio::post(io_, [this] { server_.reset(); });
      return "{}";
    }
    return UnknownVerb(verb);
  }

  template <typename Work>
  void OnLoop(Work work) {
    std::promise<void> done;
    boost::asio::post(io_, [&] {
      work();
      done.set_value();
    });
    done.get_future().wait();
  }

  // The server learns a moment later that a client has left and its place is free.
  void ExpectService() {
    absl::StatusOr<std::string> reply;
    for (int i = 0; i < 100 && !reply.ok(); ++i) {
      if (i > 0) std::this_thread::sleep_for(20ms);
      reply = CallControl(path_, "echo");
    }
    EXPECT_TRUE(reply.ok()) << reply.status();
  }

  bool Exists() const { return std::filesystem::exists(path_); }

  mode_t ModeOf(const std::string& path) const {
    struct stat info {};
    EXPECT_EQ(lstat(path.c_str(), &info), 0);
    return info.st_mode & 07777;
  }

  // What a daemon leaves that was killed: a bound socket that nobody holds.
  void LeaveStaleSocket() {
    sockaddr_un address;
    ASSERT_TRUE(FillControlAddress(path_, address).ok());
    const int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    ASSERT_EQ(bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
    close(fd);
  }

  std::string directory_;
  std::string path_;
  boost::asio::io_context io_;
  boost::asio::executor_work_guard<boost::asio::io_context::executor_type> work_{
      io_.get_executor()};
  std::unique_ptr<ControlServer> server_;
  std::thread thread_;
  std::atomic<int> handled_ = 0;
};

std::string Echo(int id, std::string_view params = "{}") {
  return "{\"v\":1,\"id\":" + std::to_string(id) +
         ",\"verb\":\"echo\",\"params\":" + std::string(params) + "}\n";
}

TEST_F(ControlServerTest, ManyRequestsInOneWriteAreAnsweredInOrder) {
  Start();
  RawClient client(path_);
  std::string requests;
  for (int i = 0; i < 2000; ++i) requests += Echo(i, R"({"n":)" + std::to_string(i * 2) + "}");
  std::thread sender([&] { client.Send(requests); });
  for (int i = 0; i < 2000; ++i) {
    ASSERT_EQ(client.ReadLine(), "{\"v\":1,\"id\":" + std::to_string(i) +
                                     ",\"result\":{\"n\":" + std::to_string(i * 2) + "}}");
  }
  sender.join();
}

TEST_F(ControlServerTest, OtherUsersAreRefusedWhateverTheModeOfTheSocket) {
  if (geteuid() != 0) GTEST_SKIP() << "only root can be another user";
  Start();
  ASSERT_EQ(chmod(directory_.c_str(), 0755), 0);
  ASSERT_EQ(chmod(path_.c_str(), 0666), 0);
  const auto code_for = [this](uid_t user) {
    std::string code;
    std::thread([&] {
      // The kernel's call changes this thread alone, glibc's would change all.
      ASSERT_EQ(syscall(SYS_setresuid, user, user, user), 0);
      RawClient client(path_);
      client.Send("{\"v\":1,\"verb\":\"echo\"}\n");
      const json reply = client.ReadReply();
      code = reply.contains("result") ? "" : reply.value("/error/code"_json_pointer, "none");
    }).join();
    return code;
  };
  EXPECT_EQ(code_for(65534), "forbidden");
  EXPECT_EQ(handled_, 0);
  EXPECT_EQ(code_for(0), "");
  EXPECT_EQ(handled_, 1);
}

TEST_F(ControlServerTest, RequestThatComesByteByByteIsAnswered) {
  Start();
  RawClient client(path_);
  for (const char c : Echo(1)) {
    ASSERT_TRUE(client.Send({&c, 1}));
    std::this_thread::sleep_for(1ms);
  }
  EXPECT_EQ(client.ReadReply()["id"], 1);
}

TEST_F(ControlServerTest, BadRequestsAreAnsweredAndTheConnectionGoesOn) {
  Start();
  RawClient client(path_);
  const std::pair<std::string, std::string> cases[] = {
      {"nonsense\n", "bad_json"},
      {"\n", "bad_json"},
      {std::string("{\"v\":1,\"verb\":\"echo\"}\0\n", 23), "bad_json"},
      {"{\"v\":1,\"verb\":\"\xff\"}\n", "bad_json"},
      {"[]\n", "bad_request"},
      {"{\"v\":2,\"verb\":\"echo\"}\n", "bad_version"},
      {"{\"v\":1,\"verb\":\"fly\"}\n", "unknown_verb"},
      {"{\"v\":1,\"verb\":\"echo\",\"params\":1}\n", "bad_params"},
      {"{\"v\":1,\"verb\":\"throw\"}\n", "internal"},
      {std::string(1000, '[') + "\n", "too_deep"},
  };
  for (const auto& [request, code] : cases) {
    ASSERT_TRUE(client.Send(request));
    EXPECT_EQ(client.ReadCode(), code) << request;
  }
  ASSERT_TRUE(client.Send(Echo(5)));
  EXPECT_EQ(client.ReadReply()["id"], 5);
}

TEST_F(ControlServerTest, ExceptionsAreNotTold) {
  Start();
  RawClient client(path_);
  ASSERT_TRUE(client.Send("{\"v\":1,\"id\":\"a\",\"verb\":\"throw\"}\n"));
  const auto reply = client.ReadReply();
  EXPECT_EQ(reply["id"], "a");
  EXPECT_EQ(reply.dump().find("secret"), std::string::npos);
}

TEST_F(ControlServerTest, TooLongALineIsRefusedBeforeItsEndAndTheConnectionCloses) {
  Start();
  for (const char* end : {"", "\n"}) {
    RawClient client(path_);
    client.Send(std::string(kMaxControlRequestBytes + 1, ' ') + end);
    EXPECT_EQ(client.ReadCode(), "too_large");
    EXPECT_TRUE(client.IsClosed());
  }
  EXPECT_EQ(handled_, 0);
}

TEST_F(ControlServerTest, EndlessLineIsNotBuffered) {
  Start();
  RawClient client(path_);
  const std::string megabyte(1 << 20, 'a');
  bool open = true;
  for (int i = 0; i < 100 && open; ++i) open = client.Send(megabyte);
  EXPECT_FALSE(open);
  EXPECT_EQ(client.ReadCode(), "too_large");
}

TEST_F(ControlServerTest, HundredThousandLevelsAreRefused) {
  Start();
  RawClient client(path_);
  client.Send(std::string(100'000, '[') + "\n");
  EXPECT_EQ(client.ReadCode(), "too_deep");
  EXPECT_TRUE(client.IsClosed());
}

TEST_F(ControlServerTest, LongestRequestIsServed) {
  Start();
  RawClient client(path_);
  const std::string empty = Echo(1, R"({"a":""})");
  const std::string filler(kMaxControlRequestBytes + 1 - empty.size(), 'x');
  ASSERT_TRUE(client.Send(Echo(1, R"({"a":")" + filler + R"("})")));
  EXPECT_EQ(client.ReadReply()["result"]["a"], filler);
}

TEST_F(ControlServerTest, AnswersAreWrittenAfterTheClientHasEndedItsRequests) {
  Start();
  RawClient client(path_);
  ASSERT_TRUE(client.Send(Echo(1) + Echo(2)));
  client.EndRequests();
  EXPECT_EQ(client.ReadReply()["id"], 1);
  EXPECT_EQ(client.ReadReply()["id"], 2);
  EXPECT_TRUE(client.IsClosed());
}

TEST_F(ControlServerTest, LastLineWithoutNewlineIsRefused) {
  Start();
  RawClient client(path_);
  ASSERT_TRUE(client.Send(R"({"v":1,"verb":"echo"})"));
  client.EndRequests();
  EXPECT_EQ(client.ReadCode(), "bad_json");
  EXPECT_TRUE(client.IsClosed());
  EXPECT_EQ(handled_, 0);
}

TEST_F(ControlServerTest, OneClientMoreThanTheLimitIsTurnedAwayUntilOneLeaves) {
  Start();
  std::vector<RawClient> clients;
  for (int i = 0; i < kMaxControlClients; ++i) {
    clients.emplace_back(path_);
    ASSERT_TRUE(clients.back().Send(Echo(i)));
    ASSERT_EQ(clients.back().ReadReply()["id"], i);
  }
  {
    RawClient refused(path_);
    EXPECT_EQ(refused.ReadCode(), "too_many_clients");
    EXPECT_TRUE(refused.IsClosed());
  }
  const auto status = CallControl(path_, "echo").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
  ASSERT_TRUE(clients.front().Send(Echo(100)));
  EXPECT_EQ(clients.front().ReadReply()["id"], 100);
  clients.pop_back();
  ExpectService();
}

TEST_F(ControlServerTest, IdleClientIsToldAndDropped) {
  Start({.request_timeout = 100ms});
  RawClient client(path_);
  EXPECT_EQ(client.ReadCode(), "timeout");
  EXPECT_TRUE(client.IsClosed());
}

TEST_F(ControlServerTest, ClientThatDribblesIsDroppedAllTheSame) {
  Start({.request_timeout = 200ms});
  RawClient client(path_);
  const auto begin = std::chrono::steady_clock::now();
  while (client.Send(" ") && std::chrono::steady_clock::now() - begin < kPatience) {
    std::this_thread::sleep_for(10ms);
  }
  EXPECT_LT(std::chrono::steady_clock::now() - begin, 2s);
  EXPECT_EQ(client.ReadCode(), "timeout");
}

TEST_F(ControlServerTest, EveryRequestStartsTheTimeAnew) {
  Start({.request_timeout = 1s});
  RawClient client(path_);
  for (int i = 0; i < 4; ++i) {
    std::this_thread::sleep_for(300ms);
    ASSERT_TRUE(client.Send(Echo(i)));
    ASSERT_EQ(client.ReadReply()["id"], i);
  }
}

TEST_F(ControlServerTest, ClientThatDoesNotReadIsDroppedAndOthersAreServed) {
  Start({.reply_timeout = 300ms});
  RawClient deaf(path_);
  ASSERT_TRUE(deaf.Send("{\"v\":1,\"verb\":\"big\",\"params\":{\"size\":50000000}}\n" + Echo(2)));
  while (handled_ == 0) std::this_thread::sleep_for(1ms);
  ExpectService();
  std::this_thread::sleep_for(600ms);
  EXPECT_EQ(deaf.ReadLine(), "");  // cut off in the middle
  EXPECT_EQ(handled_, 2);
}

TEST_F(ControlServerTest, ClosingDoesNotWaitLongForWhoDoesNotRead) {
  // An answer has an hour, so that only the limit of a server that is closed can end this.
  Start({.reply_timeout = 1h, .linger_timeout = 200ms});
  RawClient deaf(path_);
  ASSERT_TRUE(deaf.Send("{\"v\":1,\"verb\":\"big\",\"params\":{\"size\":50000000}}\n"));
  while (handled_ == 0) std::this_thread::sleep_for(1ms);
  OnLoop([this] { server_->Close(); });
  work_.reset();
  thread_.join();  // as a daemon's does, once nothing is left to be done
}

TEST_F(ControlServerTest, WhatCannotBeDoneYetIsAskedAgain) {
  Start();
  RawClient client(path_);
  ASSERT_TRUE(client.Send("{\"v\":1,\"id\":1,\"verb\":\"wait\"}\n" + Echo(2)));
  EXPECT_EQ(client.ReadReply(), json::parse(R"({"v":1,"id":1,"result":{}})"));
  EXPECT_EQ(client.ReadReply()["id"], 2);
  EXPECT_EQ(handled_, 4);
}

TEST_F(ControlServerTest, LargeAnswerArrivesWhole) {
  Start();
  const auto reply = CallControl(path_, "big", R"({"size":20000000})");
  ASSERT_TRUE(reply.ok()) << reply.status();
  EXPECT_EQ(reply->size(), 20'000'002u);
}

TEST_F(ControlServerTest, ClientThatVanishesHarmsNobody) {
  Start();
  for (int i = 0; i < 200; ++i) {
    RawClient client(path_);
    client.Send(i % 2 == 0 ? "{\"v\":1,\"verb\":\"big\",\"params\":{\"size\":1000000}}\n" : "{\"v");
  }
  ExpectService();
}

TEST_F(ControlServerTest, SocketIsForItsOwnerOnlyWhateverTheUmask) {
  const mode_t before = umask(0);
  Start();
  umask(before);
  EXPECT_EQ(ModeOf(path_), 0600u);
}

TEST_F(ControlServerTest, MissingDirectoryIsCreated) {
  path_ = directory_ + "/run/braid.sock";
  const mode_t before = umask(022);
  Start();
  umask(before);
  EXPECT_EQ(ModeOf(directory_ + "/run"), 0755u);
  ExpectService();
}

TEST_F(ControlServerTest, StaleSocketIsReplaced) {
  LeaveStaleSocket();
  Start();
  ExpectService();
}

TEST_F(ControlServerTest, LiveSocketIsRefusedAndLeftAlone) {
  Start();
  boost::asio::io_context other_io;
  const auto other = ControlServer::Listen(other_io, path_, {});
  EXPECT_EQ(other.status().code(), absl::StatusCode::kAlreadyExists);
  EXPECT_NE(other.status().message().find(path_), std::string::npos) << other.status();
  ExpectService();
}

TEST_F(ControlServerTest, OfManyThatStartAtOnceOneWins) {
  LeaveStaleSocket();
  std::atomic<int> winners = 0;
  std::promise<void> all_tried;
  const auto until_all_tried = all_tried.get_future().share();
  std::vector<std::thread> threads;
  std::atomic<int> tried = 0;
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([&] {
      boost::asio::io_context io;
      const auto server = ControlServer::Listen(io, path_, {});
      if (server.ok()) ++winners;
      if (++tried == 8) all_tried.set_value();
      until_all_tried.wait();
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(winners, 1);
}

// Anybody who can read the directory can lock it.
TEST_F(ControlServerTest, WhoLocksTheDirectoryKeepsNobodyOut) {
  const int fd = open(directory_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  const absl::Cleanup close_it = [fd] { close(fd); };
  ASSERT_EQ(flock(fd, LOCK_EX | LOCK_NB), 0);
  Start();
  ExpectService();
  EXPECT_EQ(ModeOf(path_ + ".lock"), 0600u);
}

TEST_F(ControlServerTest, WhatIsNoSocketIsNotTouched) {
  std::ofstream(path_) << "precious";
  EXPECT_EQ(Listen().status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(std::filesystem::file_size(path_), 8u);
  std::filesystem::remove(path_);
  std::filesystem::create_symlink("/nowhere", path_);
  EXPECT_EQ(Listen().status().code(), absl::StatusCode::kFailedPrecondition);
}

TEST_F(ControlServerTest, PathsThatCannotBeAreExplained) {
  path_ = directory_ + "/" + std::string(120, 'x');
  EXPECT_EQ(Listen().status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(Listen().status().message().find(path_), std::string::npos);
  path_ = "";
  EXPECT_EQ(Listen().status().code(), absl::StatusCode::kInvalidArgument);
  path_ = directory_ + "/a/b/c.sock";
  EXPECT_EQ(Listen().status().code(), absl::StatusCode::kNotFound) << Listen().status();
  std::ofstream(directory_ + "/file") << "";
  path_ = directory_ + "/file/c.sock";
  EXPECT_FALSE(Listen().ok());
}

TEST_F(ControlServerTest, CloseRemovesTheSocketAndEndsIdleClients) {
  Start();
  RawClient idle(path_);
  ASSERT_TRUE(idle.Send(Echo(1)));
  ASSERT_EQ(idle.ReadReply()["id"], 1);
  OnLoop([this] { server_->Close(); });
  EXPECT_FALSE(Exists());
  EXPECT_TRUE(idle.IsClosed());
  OnLoop([this] { server_->Close(); });
}

TEST_F(ControlServerTest, CloseLeavesTheSocketOfASuccessor) {
  Start();
  std::filesystem::remove(path_);
  boost::asio::io_context other_io;
  const auto successor = ControlServer::Listen(other_io, path_, {});
  ASSERT_TRUE(successor.ok()) << successor.status();
  OnLoop([this] { server_.reset(); });
  EXPECT_TRUE(Exists());
}

TEST_F(ControlServerTest, HandlerMayCloseTheServerAndItsAnswerStillArrives) {
  Start();
  RawClient client(path_);
  ASSERT_TRUE(client.Send("{\"v\":1,\"id\":1,\"verb\":\"close\"}\n" + Echo(2)));
  EXPECT_EQ(client.ReadReply()["id"], 1);
  EXPECT_TRUE(client.IsClosed());
  EXPECT_EQ(handled_, 1);
}

TEST_F(ControlServerTest, ServerMayBeDestroyedWithClientsAndALoopThatNeverRuns) {
  {
    boost::asio::io_context io;
    auto server = ControlServer::Listen(io, path_, {});
    ASSERT_TRUE(server.ok()) << server.status();
    RawClient client(path_);
    io.poll();
    server->reset();
  }
  EXPECT_FALSE(Exists());
}

TEST_F(ControlServerTest, RunningOutOfDescriptorsIsSurvived) {
  Start();
  rlimit before;
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
  const absl::Cleanup restore = [&before] { setrlimit(RLIMIT_NOFILE, &before); };
  RawClient client(path_);
  ASSERT_TRUE(client.Send(Echo(1)));
  ASSERT_EQ(client.ReadReply()["id"], 1);
  const int next = dup(0);
  close(next);
  // Room for the descriptor of the next client, none for the server's end of it.
  const rlimit tight{static_cast<rlim_t>(next) + 1, before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &tight), 0);
  RawClient late(path_);
  ASSERT_TRUE(late.Send(Echo(2)));
  EXPECT_TRUE(late.IsSilentFor(50ms));
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
  EXPECT_EQ(late.ReadReply()["id"], 2);
}

TEST_F(ControlServerTest, ClientStopsTheDaemonAndWaitsForItsEnd) {
  Start();
  const auto status = StopDaemon(path_, kPatience);
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_FALSE(Exists());
}

TEST(ControlClientTest, FailuresSayInOneLineWhatToDo) {
  const std::string missing = "/nowhere/braid.sock";
  const auto status = CallControl(missing, "status").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(status.message(),
            "no daemon runs at /nowhere/braid.sock (no such socket); start it with 'braid run "
            "--config FILE', or name its socket with --socket");
  EXPECT_EQ(StopDaemon(missing, 1s).code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(CallControl(std::string(108, 'x'), "status").status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(CallControl("", "status").status().code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(ControlServerTest, ClientTellsAStaleSocketFromADaemon) {
  LeaveStaleSocket();
  const auto status = CallControl(path_, "status").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_NE(status.message().find("nobody listens there"), std::string::npos) << status;
}

TEST_F(ControlServerTest, ClientDoesNotWaitForEverForADaemonThatHangs) {
  auto server = Listen();  // its loop does not run
  ASSERT_TRUE(server.ok());
  EXPECT_EQ(CallControl(path_, "echo", "{}", 100ms).status().code(),
            absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(StopDaemon(path_, 100ms).code(), absl::StatusCode::kDeadlineExceeded);
}

}  // namespace
}  // namespace braid::control_server_test
