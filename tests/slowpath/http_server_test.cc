#include "slowpath/http_server.h"

#include <gtest/gtest.h>
#include <malloc.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <atomic>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/post.hpp>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <future>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "slowpath/tls_pace.h"
#include "support/http_client.h"

namespace braid::http_server_test {
namespace {

using nlohmann::json;
using testing::HttpAnswer;
using testing::HttpClient;
using namespace std::chrono_literals;

constexpr char kToken[] = "0123456789abcdef0123456789abcdef";

// Raises the number of descriptors as far as many clients at once need.
void AllowManyFiles() {
  rlimit limit;
  getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = std::min<rlim_t>(limit.rlim_max, 8192);
  setrlimit(RLIMIT_NOFILE, &limit);
}

// Sanitizers keep what was freed for a while, so memory says nothing.
#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define BRAID_TEST_IS_SANITIZED
#endif
#elif defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define BRAID_TEST_IS_SANITIZED
#endif
#ifdef BRAID_TEST_IS_SANITIZED
constexpr bool kIsSanitized = true;
#else
constexpr bool kIsSanitized = false;
#endif

// The most memory that this process has had since the last ForgetPeak().
uint64_t PeakBytes() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("VmHWM:")) return std::stoull(line.substr(6)) * 1024;
  }
  return 0;
}
void ForgetPeak() { std::ofstream("/proc/self/clear_refs") << "5"; }

class HttpServerTest : public ::testing::Test {
 protected:
  HttpServerTest() {
    char name[] = "/tmp/braid-http-XXXXXX";
    directory_ = mkdtemp(name);
    token_file_ = directory_ + "/token";
    WritePrivately(token_file_, std::string(kToken) + "\n");
  }

  ~HttpServerTest() override {
    if (thread_.joinable()) {
      OnLoop([this] { server_.reset(); });
      work_.reset();
      io_.stop();
      thread_.join();
    }
    std::filesystem::remove_all(directory_);
  }

  static void WritePrivately(const std::string& path, const std::string& text) {
    const std::string fresh = path + ".new";
    std::ofstream(fresh) << text;
    chmod(fresh.c_str(), 0600);
    std::filesystem::rename(fresh, path);
  }

  HttpServerOptions Options(const std::string& address = "127.0.0.1") const {
    HttpServerOptions options;
    options.access.address = {*IpAddress::Parse(address), 0};
    options.access.token_file = token_file_;
    return options;
  }

  // Self-signed, by openssl as an operator would.
  TlsFiles MakeCertificate(const std::string& common_name) const {
    const TlsFiles files{directory_ + "/tls.crt", directory_ + "/tls.key"};
    const std::string command = absl::StrCat(
        "cd ", directory_, " && umask 077 && openssl req -x509 -newkey ec -pkeyopt ",
        "ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=", common_name,
        " -keyout new.key -out new.crt 2>/dev/null && mv new.key tls.key && mv new.crt tls.crt");
    EXPECT_EQ(std::system(command.c_str()), 0) << command;
    return files;
  }

  HttpServerOptions TlsOptions() const {
    HttpServerOptions options = Options();
    options.tls = MakeCertificate("first");
    return options;
  }

  absl::StatusOr<std::unique_ptr<HttpServer>> Listen(HttpServerOptions options) {
    return HttpServer::Listen(
        io_, std::move(options),
        {.verb = [this](auto verb, const auto& params) { return Handle(verb, params); },
         .metrics = [] { return std::string("braid_build_info 1\n"); },
         .events = events_});
  }

  void Start(HttpServerOptions options) {
    auto server = Listen(std::move(options));
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    thread_ = std::thread([this] { io_.run(); });
  }

  ControlResult Handle(std::string_view verb, const json& params) {
    ++handled_;
    if (verb == "status") return std::string("{\"state\":\"running\"}");
    // Put together at once, however large: after a call that took long the server rests.
    if (verb == "peers") return "\"" + std::string(answer_bytes_, 'x') + "\"";
    if (verb == "peer") return ControlError{ControlCode::kNotFound, "no such peer"};
    if (verb == "health") throw std::runtime_error("secret");
    if (verb == "config") {
      call_begins_.push_back(std::chrono::steady_clock::now());
      std::this_thread::sleep_for(kLongCall);
      return std::string("{}");
    }
    if (verb == "start" && handled_ < 3) {
      return ControlError{.code = ControlCode::kConflict, .message = "taken", .ask_again = true};
    }
    if (verb == "stop") {
      server_->Close();
      return std::string("{}");
    }
    return ToJsonText(json({{"verb", verb}, {"params", params}}));
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

  const Endpoint& endpoint() const { return server_->endpoint(); }

  static std::string Get(std::string_view target, std::string_view fields = "") {
    return absl::StrCat("GET ", std::string(target), " HTTP/1.1\r\nHost: localhost\r\n",
                        std::string(fields), "\r\n");
  }
  static std::string Write(std::string_view method, std::string_view target, std::string_view body,
                           std::string_view fields = "") {
    return absl::StrCat(std::string(method), " ", std::string(target),
                        " HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer ", kToken,
                        "\r\nContent-Type: application/json\r\nContent-Length: ", body.size(),
                        "\r\n", std::string(fields), "\r\n", std::string(body));
  }

  HttpAnswer Ask(std::string_view request) {
    HttpClient client(endpoint());
    EXPECT_TRUE(client.Send(request));
    return client.ReadAnswer();
  }
  int StatusOf(std::string_view request) { return Ask(request).status; }
  void ExpectService() { EXPECT_EQ(StatusOf(Get("/v1/status")), 200); }

  static std::string CodeIn(const HttpAnswer& answer) {
    return json::parse(answer.body, nullptr, false).value("code", "none");
  }

  static constexpr std::chrono::milliseconds kLongCall{50};

  std::string directory_;
  std::string token_file_;
  std::vector<std::chrono::steady_clock::time_point> call_begins_;  // of long ones
  size_t answer_bytes_ = 1000;
  EventLog events_;
  boost::asio::io_context io_;
  boost::asio::executor_work_guard<boost::asio::io_context::executor_type> work_{
      io_.get_executor()};
  std::unique_ptr<HttpServer> server_;
  std::thread thread_;
  std::atomic<int> handled_ = 0;
};

// --- Requests and answers ---

TEST_F(HttpServerTest, RequestsMeanVerbs) {
  Start(Options());
  const HttpAnswer status = Ask(Get("/v1/status"));
  EXPECT_EQ(status.status, 200);
  EXPECT_EQ(status.body, "{\"state\":\"running\"}");
  EXPECT_EQ(status.fields.at("content-type"), "application/json");
  EXPECT_EQ(status.fields.at("cache-control"), "no-store");
  EXPECT_EQ(status.fields.at("x-content-type-options"), "nosniff");
  EXPECT_FALSE(status.fields.contains("access-control-allow-origin"));

  const HttpAnswer change = Ask(Write("PATCH", "/v1/paths/l%74e", "{\"weight\":2}"));
  EXPECT_EQ(json::parse(change.body),
            json({{"verb", "path_set"}, {"params", {{"name", "lte"}, {"weight", 2}}}}));
  const HttpAnswer metrics = Ask(Get("/metrics"));
  EXPECT_EQ(metrics.body, "braid_build_info 1\n");
  EXPECT_EQ(metrics.fields.at("content-type"), "text/plain; version=0.0.4; charset=utf-8");
  EXPECT_EQ(json::parse(Ask(Get("/v1/openapi.json")).body)["openapi"], "3.0.3");
}

TEST_F(HttpServerTest, ErrorsHaveTheirStatusAndCode) {
  Start(Options());
  const std::pair<std::string, std::pair<int, std::string>> cases[] = {
      {Get("/v1/peers/nobody"), {404, "not_found"}},
      {Get("/nothing"), {404, "not_found"}},
      {Get("/v1/health"), {500, "internal"}},
      {Write("DELETE", "/v1/status", ""), {405, "method_not_allowed"}},
      {Get("/v1/status?x"), {400, "bad_request"}},
      {Write("PUT", "/v1/mode", "{"), {400, "bad_json"}},
      {"GET /v1/status HTTP/1.1\r\n\r\n", {400, "bad_request"}},
      {"GET v1/status HTTP/1.1\r\nHost: localhost\r\n\r\n", {400, "bad_request"}},
      {"GET http://localhost/v1/status HTTP/1.1\r\nHost: localhost\r\n\r\n", {400, "bad_request"}},
      {Get("/v1/status", "Host: localhost\r\n"), {400, "bad_request"}},
      {"nonsense\r\n\r\n", {400, "bad_request"}},
      {"GET /v1/status HTTP/2.0\r\nHost: localhost\r\n\r\n", {505, "bad_version"}},
      {Get("/" + std::string(3000, 'x')), {414, "too_large"}},
      {Get("/v1/status", "X: " + std::string(10'000, 'x') + "\r\n"), {431, "too_large"}},
  };
  for (const auto& [request, wanted] : cases) {
    const HttpAnswer answer = Ask(request);
    EXPECT_EQ(answer.status, wanted.first) << request.substr(0, 100);
    EXPECT_EQ(CodeIn(answer), wanted.second) << request.substr(0, 100);
    EXPECT_TRUE(json::parse(answer.body)["details"].is_object());
  }
  EXPECT_EQ(Ask(Get("/v1/stop")).fields.at("allow"), "POST, OPTIONS");
  EXPECT_EQ(Ask(Get("/v1/health")).body.find("secret"), std::string::npos);
  ExpectService();
}

TEST_F(HttpServerTest, HeadIsGetWithoutItsBody) {
  Start(Options());
  HttpClient client(endpoint());
  const std::string head = "HEAD /v1/status HTTP/1.1\r\nHost: localhost\r\n\r\n";
  client.Send(head + Get("/v1/status"));
  const HttpAnswer first = client.ReadAnswer(/*to_head=*/true);
  const HttpAnswer second = client.ReadAnswer();
  EXPECT_EQ(first.status, 200);
  EXPECT_EQ(first.fields, second.fields);
  EXPECT_EQ(second.body, "{\"state\":\"running\"}");
}

TEST_F(HttpServerTest, OneConnectionAsksManyTimesAndAhead) {
  Start(Options());
  HttpClient client(endpoint());
  std::string requests;
  for (int i = 0; i < 300; ++i) {
    requests += i % 2 == 0 ? Get(absl::StrCat("/v1/nothing", i))
                           : Write("PATCH", absl::StrCat("/v1/paths/", i), "{\"standby\":true}");
  }
  std::thread sender([&] { client.Send(requests); });
  for (int i = 0; i < 300; ++i) {
    const HttpAnswer answer = client.ReadAnswer();
    ASSERT_EQ(answer.status, i % 2 == 0 ? 404 : 200) << i;
    if (i % 2 == 1) {
      ASSERT_EQ(json::parse(answer.body)["params"]["name"], std::to_string(i));
    }
  }
  sender.join();
}

TEST_F(HttpServerTest, BytesMayComeOneByOneAndBodiesInChunks) {
  Start(Options());
  HttpClient client(endpoint());
  const std::string request =
      absl::StrCat("PUT /v1/mode HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer ", kToken,
                   "\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
                   "7\r\n{\"mode\"\r\na;x=y\r\n:\"stripe\"}\r\n0\r\nTrailer: x\r\n\r\n");
  for (const char c : request) ASSERT_TRUE(client.Send({&c, 1}));
  EXPECT_EQ(json::parse(client.ReadAnswer().body)["params"], json({{"mode", "stripe"}}));
  client.Send(Get("/v1/status"));
  EXPECT_EQ(client.ReadAnswer().status, 200);
}

TEST_F(HttpServerTest, EveryCutOfABodyInChunksIsTheSame) {
  Start(Options());
  const std::string head =
      absl::StrCat("POST /v1/reload HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer ", kToken,
                   "\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n");
  for (const std::string body : {"0\r\n\r\n", "00;x\r\nA: b\r\n\r\n", "2\r\n{}\r\n0\r\n\r\n"}) {
    for (size_t cut = 0; cut <= body.size(); ++cut) {
      HttpClient client(endpoint());
      client.Send(head + body.substr(0, cut));
      OnLoop([] {});
      std::this_thread::sleep_for(2ms);
      client.Send(body.substr(cut));
      EXPECT_EQ(client.ReadAnswer().status, 200) << body << " cut at " << cut;
    }
  }
}

TEST_F(HttpServerTest, ConnectionEndsWhereItIsAskedTo) {
  Start(Options());
  for (const std::string& request :
       {Get("/v1/status", "Connection: close\r\n"),
        std::string("GET /v1/status HTTP/1.0\r\nHost: localhost\r\n\r\n")}) {
    HttpClient client(endpoint());
    client.Send(request);
    const HttpAnswer answer = client.ReadAnswer();
    EXPECT_EQ(answer.status, 200);
    EXPECT_EQ(answer.fields.at("connection"), "close");
    EXPECT_TRUE(client.IsClosed());
  }
}

TEST_F(HttpServerTest, ClientThatWaitsToSendItsBodyIsTold) {
  Start(Options());
  HttpClient client(endpoint());
  const std::string request = Write("PUT", "/v1/mode", "{}", "Expect: 100-continue\r\n");
  client.Send(request.substr(0, request.size() - 2));
  EXPECT_EQ(client.ReadHead().status, 100);
  client.Send("{}");
  EXPECT_EQ(client.ReadAnswer().status, 200);
  // Who may not write need not send it.
  HttpClient stranger(endpoint());
  stranger.Send(
      "PUT /v1/mode HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n"
      "Content-Length: 2\r\n\r\n");
  EXPECT_EQ(stranger.ReadAnswer().status, 401);
  EXPECT_TRUE(stranger.IsClosed());
}

// --- Who may ask ---

TEST_F(HttpServerTest, WritesNeedTheToken) {
  Start(Options());
  const std::string post = "POST /v1/reload HTTP/1.1\r\nHost: localhost\r\n";
  const HttpAnswer without = Ask(post + "\r\n");
  EXPECT_EQ(without.status, 401);
  EXPECT_EQ(CodeIn(without), "unauthorized");
  EXPECT_TRUE(without.fields.at("www-authenticate").starts_with("Bearer "));
  const std::string token = kToken;
  for (const std::string& wrong :
       {"Bearer " + token.substr(1), "Bearer " + token + "0", "Bearer x" + token.substr(1),
        std::string("Bearer "), "Bearer  " + token, "Basic " + token, token,
        std::string("Bearer")}) {
    EXPECT_EQ(StatusOf(post + "Authorization: " + wrong + "\r\n\r\n"), 401) << wrong;
  }
  EXPECT_EQ(handled_, 0);
  EXPECT_EQ(StatusOf(post + "Authorization: bearer " + token + "\r\n\r\n"), 200);
  EXPECT_EQ(StatusOf(post + "Authorization: Bearer " + token + "\r\nAuthorization: Bearer " +
                     token + "\r\n\r\n"),
            400);
}

TEST_F(HttpServerTest, NothingIsWrittenWhereThereIsNoToken) {
  HttpServerOptions options = Options();
  options.access.token_file = "";
  Start(options);
  const HttpAnswer answer = Ask(Write("POST", "/v1/reload", ""));
  EXPECT_EQ(answer.status, 403);
  EXPECT_EQ(CodeIn(answer), "forbidden");
  EXPECT_EQ(handled_, 0);
  ExpectService();
}

TEST_F(HttpServerTest, TokenIsReadAnewAndFailsClosed) {
  Start(Options());
  EXPECT_EQ(StatusOf(Write("POST", "/v1/reload", "")), 200);
  std::string with_new = Write("POST", "/v1/reload", "");
  with_new.replace(with_new.find(kToken), 2, "zz");
  WritePrivately(token_file_, "zz" + std::string(kToken).substr(2));
  std::this_thread::sleep_for(kLookAtFilesEvery + 100ms);
  EXPECT_EQ(StatusOf(with_new), 200);
  EXPECT_EQ(StatusOf(Write("POST", "/v1/reload", "")), 401);
  // What others could have read is no secret.
  chmod(token_file_.c_str(), 0644);
  std::this_thread::sleep_for(kLookAtFilesEvery + 100ms);
  EXPECT_EQ(StatusOf(with_new), 401);
  chmod(token_file_.c_str(), 0600);
  std::this_thread::sleep_for(kLookAtFilesEvery + 100ms);
  EXPECT_EQ(StatusOf(with_new), 200);
}

TEST_F(HttpServerTest, StartNeedsAGoodToken) {
  for (const char* text : {"", "short", "sixteen bytes!!!", "0123456789abcdef\nmore"}) {
    WritePrivately(token_file_, text);
    const auto server = Listen(Options());
    EXPECT_TRUE(absl::IsInvalidArgument(server.status())) << text;
    EXPECT_NE(server.status().message().find(token_file_), std::string::npos);
  }
  WritePrivately(token_file_, kToken);
  chmod(token_file_.c_str(), 0640);
  EXPECT_TRUE(absl::IsPermissionDenied(Listen(Options()).status()));
}

TEST_F(HttpServerTest, OnlyItsOwnNamesAreAnswered) {
  HttpServerOptions options = Options("127.0.0.2");
  options.access.hosts = {"braid.example", "192.0.2.7"};
  Start(options);
  const auto status_for = [this](const std::string& host) {
    return StatusOf("GET /v1/status HTTP/1.1\r\nHost: " + host + "\r\n\r\n");
  };
  for (const char* host : {"localhost", "LocalHost:7780", "127.0.0.1", "127.0.0.2:7780", "[::1]",
                           "[::1]:7780", "braid.example", "Braid.Example.:1", "192.0.2.7"}) {
    EXPECT_EQ(status_for(host), 200) << host;
  }
  for (const char* host :
       {"evil.example", "localhost.evil.example", "braid.example.evil", "192.0.2.8", "::1",
        "localhost:x", "[::1", "[localhost]", "[::1]x", ".", "[]"}) {
    EXPECT_EQ(status_for(host), 403) << host;
  }
}

TEST_F(HttpServerTest, PagesOfOtherOriginsMayNotAsk) {
  HttpServerOptions options = Options();
  options.access.origins = {"https://panel.example:8443"};
  Start(options);
  const auto answer_to = [this](const std::string& origin) {
    return Ask("GET /v1/status HTTP/1.1\r\nHost: localhost:7780\r\nOrigin: " + origin + "\r\n\r\n");
  };
  EXPECT_EQ(answer_to("http://localhost:7780").status, 200);
  EXPECT_FALSE(answer_to("http://localhost:7780").fields.contains("access-control-allow-origin"));
  const HttpAnswer known = answer_to("https://panel.example:8443");
  EXPECT_EQ(known.status, 200);
  EXPECT_EQ(known.fields.at("access-control-allow-origin"), "https://panel.example:8443");
  EXPECT_EQ(known.fields.at("vary"), "Origin");
  for (const char* origin : {"null", "https://localhost:7780", "http://localhost",
                             "http://localhost:7781", "https://panel.example", "http://evil"}) {
    const HttpAnswer answer = answer_to(origin);
    EXPECT_EQ(answer.status, 403) << origin;
    EXPECT_EQ(CodeIn(answer), "forbidden");
    EXPECT_FALSE(answer.fields.contains("access-control-allow-origin")) << origin;
  }
  const auto preflight = [this](const std::string& origin) {
    return Ask("OPTIONS /v1/mode HTTP/1.1\r\nHost: localhost\r\nOrigin: " + origin +
               "\r\nAccess-Control-Request-Method: PUT\r\n\r\n");
  };
  const HttpAnswer allowed = preflight("https://panel.example:8443");
  EXPECT_EQ(allowed.status, 204);
  EXPECT_EQ(allowed.fields.at("allow"), "GET, HEAD, PUT, OPTIONS");
  EXPECT_TRUE(allowed.fields.contains("access-control-allow-headers"));
  EXPECT_FALSE(allowed.fields.contains("content-length"));
  EXPECT_EQ(preflight("https://evil.example").status, 403);
}

// --- Limits ---

TEST_F(HttpServerTest, LongBodiesAreRefusedBeforeTheyCome) {
  Start(Options());
  HttpClient client(endpoint());
  client.Send(
      absl::StrCat("PUT /v1/mode HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer ", kToken,
                   "\r\nContent-Type: application/json\r\nContent-Length: ", 1 << 30, "\r\n\r\n{"));
  const HttpAnswer answer = client.ReadAnswer();
  EXPECT_EQ(answer.status, 413);
  EXPECT_EQ(CodeIn(answer), "too_large");
  client.EndRequests();
  EXPECT_TRUE(client.IsClosed());
  // The longest that is taken.
  const std::string longest = "{\"x\":\"" + std::string(kMaxControlRequestBytes - 8, 'x') + "\"}";
  EXPECT_EQ(StatusOf(Write("PUT", "/v1/mode", longest)), 200);
  EXPECT_EQ(StatusOf(Write("PUT", "/v1/mode", longest + " ")), 413);
}

// A GiB of JSON, in one body and in chunks, and 100,000 levels: each refused, with less than a MiB.
TEST_F(HttpServerTest, MonstrousBodiesCostNoMemory) {
  Start(Options());
  static const std::string part(1 << 16, '[');
  const std::string fields =
      absl::StrCat("PUT /v1/mode HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer ", kToken,
                   "\r\nContent-Type: application/json\r\n");
  const auto send_gib = [&](const std::string& head, const std::string& piece) {
    HttpClient client(endpoint());
    client.Send(head);
    for (int i = 0; i < (1 << 30) / static_cast<int>(part.size()) && client.Send(piece); ++i) {
    }
    return client.ReadAnswer().status;
  };
  const std::string chunk = absl::StrCat("8000\r\n", part.substr(0, 0x8000), "\r\n");
  const std::string deep(50'000, '[');
  const std::string deep_request = Write("PUT", "/v1/mode", deep + deep.substr(0, 10'000));
  const auto run = [&] {
    EXPECT_EQ(send_gib(fields + "Content-Length: 1073741824\r\n\r\n", part), 413);
    EXPECT_EQ(send_gib(fields + "Transfer-Encoding: chunked\r\n\r\n", chunk), 413);
    EXPECT_EQ(StatusOf(deep_request), 400);
    EXPECT_EQ(send_gib("GET /" + part, part), 431);
  };
  run();           // what is loaded and kept at the first time
  malloc_trim(0);  // what others have freed would hide what is taken
  ForgetPeak();
  const uint64_t before = PeakBytes();
  run();
  const uint64_t peak = PeakBytes();
  if (!kIsSanitized) {
    EXPECT_LT(peak, before + (1 << 20));
  }
  ExpectService();
  // What would be too much is seen.
  constexpr size_t kTooMuch = 2 << 20;
  void* memory = mmap(nullptr, kTooMuch, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
  ASSERT_NE(memory, MAP_FAILED);
  EXPECT_GE(PeakBytes(), before + (1 << 20));
  munmap(memory, kTooMuch);
}

TEST_F(HttpServerTest, LevelsBeyondTheLimitAreRefused) {
  Start(Options());
  // As deep as fits into a body, and as the issue of too long a body comes first: in 100,000 bytes.
  const HttpAnswer deep = Ask(Write("PUT", "/v1/mode", std::string(60'000, '[')));
  EXPECT_EQ(deep.status, 400);
  EXPECT_EQ(CodeIn(deep), "too_deep");
  EXPECT_EQ(StatusOf(Write("PUT", "/v1/mode", std::string(100'000, '['))), 413);
}

TEST_F(HttpServerTest, ThousandSlowClientsDoNotStopIt) {
  AllowManyFiles();
  Start(Options());
  std::vector<std::unique_ptr<HttpClient>> slow;
  for (int i = 0; i < 1000; ++i) {
    slow.push_back(std::make_unique<HttpClient>(endpoint()));
    slow.back()->Send("GET /v1/status HT");
    if (i % 50 == 0) ExpectService();
  }
  ExpectService();
  // The newest of them are still there, and may go on.
  slow.back()->Send("TP/1.1\r\nHost: localhost\r\n\r\n");
  EXPECT_EQ(slow.back()->ReadAnswer().status, 200);
  EXPECT_TRUE(slow.front()->IsClosed());
}

TEST_F(HttpServerTest, AddressThatHasItsPartMakesRoomItself) {
  HttpServerOptions options = Options("0.0.0.0");
  options.tls = MakeCertificate("first");
  options.max_connections = 8;
  options.max_connections_per_address = 4;
  Start(options);
  const Endpoint at{*IpAddress::Parse("127.0.0.1"), endpoint().port};
  HttpClient first(at);
  ASSERT_TRUE(first.StartTls());
  std::vector<std::unique_ptr<HttpClient>> others;
  for (int i = 0; i < 3; ++i) {
    others.push_back(std::make_unique<HttpClient>(at));
    ASSERT_TRUE(others.back()->StartTls());
  }
  const auto get = Get("/v1/status", absl::StrCat("Authorization: Bearer ", kToken, "\r\n"));
  first.Send(get);
  EXPECT_EQ(first.ReadAnswer().status, 200);  // no longer who has waited longest
  others.push_back(std::make_unique<HttpClient>(at));
  ASSERT_TRUE(others.back()->StartTls());
  EXPECT_TRUE(others.front()->IsClosed());
  first.Send(get);
  EXPECT_EQ(first.ReadAnswer().status, 200);
}

TEST_F(HttpServerTest, SlowRequestsAndIdleConnectionsEnd) {
  HttpServerOptions options = Options();
  options.request_timeout = 300ms;
  options.idle_timeout = 600ms;
  Start(options);
  HttpClient silent(endpoint());
  EXPECT_TRUE(silent.IsClosed());
  HttpClient slow(endpoint());
  slow.Send("GET /v1/st");
  const HttpAnswer answer = slow.ReadAnswer();
  EXPECT_EQ(answer.status, 408);
  EXPECT_EQ(CodeIn(answer), "timeout");
  EXPECT_TRUE(slow.IsClosed());
  HttpClient idle(endpoint());
  idle.Send(Get("/v1/status"));
  EXPECT_EQ(idle.ReadAnswer().status, 200);
  EXPECT_TRUE(idle.IsClosed());
}

TEST_F(HttpServerTest, ClientThatDoesNotReadIsDropped) {
  HttpServerOptions options = Options();
  options.reply_timeout = 300ms;
  answer_bytes_ = 32 << 20;
  Start(options);
  HttpClient client(endpoint(), 4096);
  client.Send(Get("/v1/peers"));
  std::this_thread::sleep_for(1s);
  ExpectService();
  const HttpAnswer cut = client.ReadAnswer();
  EXPECT_EQ(cut.status, 200);
  EXPECT_LT(cut.body.size(), answer_bytes_);
}

TEST_F(HttpServerTest, AnswersThatNobodyTakesAreBounded) {
  HttpServerOptions options = Options();
  options.max_answer_bytes = 40 << 20;
  answer_bytes_ = 32 << 20;
  Start(options);
  HttpClient first(endpoint(), 4096);
  HttpClient second(endpoint(), 4096);
  first.Send(Get("/v1/peers"));
  second.Send(Get("/v1/peers"));
  EXPECT_EQ(first.ReadHead().status, 200);
  EXPECT_EQ(second.ReadHead().status, 200);
  const HttpAnswer refused = Ask(Get("/v1/status"));
  EXPECT_EQ(refused.status, 503);
  EXPECT_EQ(CodeIn(refused), "too_many_clients");
  EXPECT_EQ(refused.fields.at("retry-after"), "1");
}

TEST_F(HttpServerTest, SilentTlsClientEnds) {
  HttpServerOptions options = TlsOptions();
  options.request_timeout = 300ms;
  Start(options);
  HttpClient silent(endpoint());
  EXPECT_TRUE(silent.IsClosed());
  HttpClient slow(endpoint());
  slow.Send("\x16\x03\x01");
  EXPECT_TRUE(slow.IsClosed());
}

TEST(TlsPaceTest, ConnectionsAreTakenAtOnceUntilTheyAreTooMany) {
  TlsPace pace;
  const TlsPace::Time now{100s};
  int taken = 0;
  while (pace.OnAccept(now) == 0s) ++taken;
  EXPECT_EQ(taken, TlsPace::kBurst / TlsPace::kLeast);
  EXPECT_EQ(pace.OnAccept(now + TlsPace::kBurst), 0s);
}

// However dear a client makes its handshakes, a part of the thread's time goes into them.
TEST(TlsPaceTest, WhatAHandshakeTakesIsPaidFor) {
  TlsPace pace;
  TlsPace::Time now{100s};
  const TlsPace::Time begin = now;
  constexpr auto kCost = 20ms;
  auto spent = 0ms;
  while (now < begin + 10s) {
    now += pace.OnAccept(now);
    pace.OnCost(0ms, kCost / 2, now);
    pace.OnCost(kCost / 2, kCost, now + kCost);
    now += kCost;
    spent += kCost;
  }
  EXPECT_LT(spent, (10s + TlsPace::kBurst) / TlsPace::kTimesItsCost + 2 * kCost);
  EXPECT_GT(spent, 10s / TlsPace::kTimesItsCost / 2);
}

// What else the thread has to do gets its part of it, however much is asked for.
TEST_F(HttpServerTest, HandlersRestAfterLongCalls) {
  Start(Options());
  HttpClient first(endpoint());
  HttpClient second(endpoint());
  first.Send(Get("/v1/config") + Get("/v1/config"));
  second.Send(Get("/v1/config"));
  for (HttpClient* client : {&first, &first, &second}) EXPECT_EQ(client->ReadAnswer().status, 200);
  OnLoop([this] {
    ASSERT_EQ(call_begins_.size(), 3u);
    EXPECT_GE(call_begins_[1] - call_begins_[0], 4 * kLongCall);
    EXPECT_GE(call_begins_[2] - call_begins_[1], 4 * kLongCall);
  });
}

TEST_F(HttpServerTest, RefusalsRestToo) {
  Start(Options());
  HttpClient first(endpoint());
  HttpClient second(endpoint());
  const auto begin = std::chrono::steady_clock::now();
  first.Send(Get("/v1/config"));
  EXPECT_EQ(first.ReadAnswer().status, 200);
  second.Send(Get("/nothing"));
  EXPECT_EQ(second.ReadAnswer().status, 404);
  EXPECT_GE(std::chrono::steady_clock::now() - begin, 4 * kLongCall);
}

TEST_F(HttpServerTest, WhatCannotBeDoneYetIsAskedAgain) {
  Start(Options());
  EXPECT_EQ(Ask(Write("POST", "/v1/start", "")).status, 200);
  EXPECT_EQ(handled_, 3);
}

TEST_F(HttpServerTest, RunningOutOfDescriptorsIsSurvived) {
  Start(Options());
  rlimit before;
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
  const absl::Cleanup restore = [&before] { setrlimit(RLIMIT_NOFILE, &before); };
  HttpClient client(endpoint());
  client.Send(Get("/v1/status"));
  ASSERT_EQ(client.ReadAnswer().status, 200);
  const int next = dup(0);
  close(next);
  // Room for the descriptor of the next client, none for the server's end of it.
  const rlimit tight{static_cast<rlim_t>(next) + 1, before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &tight), 0);
  HttpClient late(endpoint());
  ASSERT_TRUE(late.Send(Get("/v1/status")));
  EXPECT_TRUE(late.IsSilentFor(50));
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
  EXPECT_EQ(late.ReadAnswer().status, 200);
}

TEST_F(HttpServerTest, StreamsOfAllAddressesAreBounded) {
  HttpServerOptions options = Options();
  options.max_streams = 1;
  Start(options);
  HttpClient first(endpoint());
  first.Send(Get("/v1/events"));
  EXPECT_EQ(first.ReadHead().status, 200);
  const HttpAnswer refused = Ask(Get("/v1/events"));
  EXPECT_EQ(refused.status, 503);
  EXPECT_EQ(CodeIn(refused), "too_many_clients");
}

// --- TLS ---

TEST_F(HttpServerTest, TlsServesFrom12On) {
  Start(TlsOptions());
  for (const int version : {TLS1_2_VERSION, TLS1_3_VERSION}) {
    HttpClient client(endpoint());
    ASSERT_TRUE(client.StartTls(version));
    client.Send(Get("/v1/status"));
    EXPECT_EQ(client.ReadAnswer().status, 200);
  }
  for (const int version : {TLS1_VERSION, TLS1_1_VERSION}) {
    HttpClient old(endpoint());
    EXPECT_FALSE(old.StartTls(version));
  }
  HttpClient plain(endpoint());
  plain.Send(Get("/v1/status"));
  EXPECT_EQ(plain.ReadAnswer().status, 0);
}

TEST_F(HttpServerTest, CertificateIsReadAnew) {
  const HttpServerOptions options = TlsOptions();
  Start(options);
  const auto name = [this] {
    HttpClient client(endpoint());
    return client.StartTls() ? client.CommonName() : "none";
  };
  EXPECT_EQ(name(), "first");
  HttpClient old(endpoint());
  ASSERT_TRUE(old.StartTls());
  MakeCertificate("second");
  std::this_thread::sleep_for(kLookAtFilesEvery + 100ms);
  EXPECT_EQ(name(), "second");
  old.Send(Get("/v1/status"));
  EXPECT_EQ(old.ReadAnswer().status, 200);
  // What does not load leaves the one that does.
  WritePrivately(options.tls->certificate_file, "nonsense");
  std::this_thread::sleep_for(kLookAtFilesEvery + 100ms);
  EXPECT_EQ(name(), "second");
}

TEST_F(HttpServerTest, FilesOfTlsMustLoadAndBelongTogether) {
  const TlsFiles files = MakeCertificate("first");
  EXPECT_TRUE(CheckTlsFiles(files).ok());
  std::filesystem::copy(files.key_file, directory_ + "/other.key");
  MakeCertificate("second");
  const auto expect_wrong = [&](const TlsFiles& wrong, const std::string& names) {
    const absl::Status status = CheckTlsFiles(wrong);
    EXPECT_FALSE(status.ok());
    EXPECT_NE(status.message().find(names), absl::string_view::npos) << status;
  };
  expect_wrong({files.certificate_file, directory_ + "/other.key"}, "is not the key of the");
  expect_wrong({files.key_file, files.key_file}, "tls.key: does not hold a certificate");
  expect_wrong({files.certificate_file, directory_ + "/missing"}, "missing: ");
  WritePrivately(directory_ + "/bad.key", "nonsense");
  expect_wrong({files.certificate_file, directory_ + "/bad.key"}, "does not hold a private key");
  ASSERT_EQ(
      std::system(absl::StrCat("umask 077; openssl pkey -in ", files.key_file,
                               " -aes256 -passout pass:secret -out ", directory_, "/locked.key")
                      .c_str()),
      0);
  expect_wrong({files.certificate_file, directory_ + "/locked.key"}, "without a password");
  chmod(files.key_file.c_str(), 0644);
  expect_wrong(files, "chmod 600");
}

TEST_F(HttpServerTest, OffTheLoopbackTlsAndTokenAreNeeded) {
  HttpServerOptions options = Options("0.0.0.0");
  EXPECT_TRUE(absl::IsInvalidArgument(Listen(options).status()));
  options.tls = MakeCertificate("first");
  options.access.token_file = "";
  EXPECT_TRUE(absl::IsInvalidArgument(Listen(options).status()));
  options.access.token_file = token_file_;
  Start(options);
  const Endpoint at{*IpAddress::Parse("127.0.0.1"), endpoint().port};
  HttpClient client(at);
  ASSERT_TRUE(client.StartTls());
  for (const char* target : {"/v1/status", "/metrics", "/v1/events", "/nothing"}) {
    client.Send(Get(target));
    EXPECT_EQ(client.ReadAnswer().status, 401) << target;
  }
  client.Send(Get("/v1/status", absl::StrCat("Authorization: Bearer ", kToken, "\r\n")));
  EXPECT_EQ(client.ReadAnswer().status, 200);
}

// --- Listening ---

TEST_F(HttpServerTest, PortInUseIsToldAndFreedAtOnce) {
  Start(Options());
  HttpServerOptions options = Options();
  options.access.address = endpoint();
  const auto second = Listen(options);
  EXPECT_TRUE(absl::IsAlreadyExists(second.status())) << second.status();
  HttpClient client(endpoint());  // whose connection ends later than the server
  client.Send(Get("/v1/status"));
  EXPECT_EQ(client.ReadAnswer().status, 200);
  OnLoop([&] {
    server_.reset();
    auto third = Listen(options);
    EXPECT_TRUE(third.ok()) << third.status();
    if (third.ok()) server_ = *std::move(third);
  });
  ExpectService();
}

// That of the tunnel's device comes with the tunnel, which needs this daemon.
TEST_F(HttpServerTest, AddressMayComeLater) {
  for (const char* address : {"192.0.2.1", "2001:db8::1"}) {
    HttpServerOptions options = Options(address);
    options.tls = MakeCertificate("first");
    const auto server = Listen(options);
    EXPECT_TRUE(server.ok()) << server.status();
  }
}

TEST_F(HttpServerTest, Ipv6IsServed) {
  Start(Options("::1"));
  EXPECT_EQ(StatusOf("GET /v1/status HTTP/1.1\r\nHost: [::1]:7780\r\n\r\n"), 200);
}

TEST_F(HttpServerTest, UnspecifiedIpv6AddressTakesIpv4Too) {
  HttpServerOptions options = Options("::");
  options.tls = MakeCertificate("first");
  Start(options);
  for (const char* address : {"127.0.0.1", "::1"}) {
    HttpClient client({*IpAddress::Parse(address), endpoint().port});
    ASSERT_TRUE(client.StartTls());
    client.Send(Get("/v1/status", absl::StrCat("Authorization: Bearer ", kToken, "\r\n")));
    EXPECT_EQ(client.ReadAnswer().status, 200) << address;
  }
}

TEST_F(HttpServerTest, HandlerMayCloseTheServerAndIsAnswered) {
  Start(Options());
  HttpClient idle(endpoint());
  HttpClient client(endpoint());
  client.Send(Write("POST", "/v1/stop", ""));
  EXPECT_EQ(client.ReadAnswer().body, "{}");
  EXPECT_TRUE(client.IsClosed());
  EXPECT_TRUE(idle.IsClosed());
}

TEST_F(HttpServerTest, ClosingDoesNotWaitForWhoDoesNotRead) {
  HttpServerOptions options = Options();
  options.linger_timeout = 200ms;
  answer_bytes_ = 32 << 20;
  Start(options);
  HttpClient client(endpoint(), 4096);
  client.Send(Get("/v1/peers"));
  EXPECT_EQ(client.ReadHead().status, 200);
  OnLoop([this] { server_->Close(); });
  work_.reset();
  thread_.join();  // as a daemon's does, once nothing is left to be done
  size_t bytes = 0;
  while (const size_t more = client.ReadUntil("nothing of it").size()) bytes += more;
  EXPECT_LT(bytes, answer_bytes_);
}

// --- Events ---

TEST_F(HttpServerTest, EventsComeAsTheyHappen) {
  Start(Options());
  HttpClient client(endpoint());
  client.Send(Get("/v1/events"));
  const HttpAnswer head = client.ReadHead();
  EXPECT_EQ(head.status, 200);
  EXPECT_EQ(head.fields.at("content-type"), "text/event-stream");
  EXPECT_FALSE(head.fields.contains("content-length"));
  EXPECT_EQ(client.ReadUntil("\n\n"), "retry: 2000\n\n");
  uint64_t id = 0;
  OnLoop([&] {
    events_.Publish("path_up", {{"path", "lte"}}, 5'000'000);
    id = events_.last_id();
  });
  EXPECT_EQ(client.ReadUntil("\n\n"),
            absl::StrCat("id: ", id,
                         "\nevent: path_up\n"
                         "data: {\"time_ms\":5,\"data\":{\"path\":\"lte\"}}\n\n"));
  // Others are served meanwhile.
  ExpectService();
  OnLoop([&] {
    events_.Publish("path_down", {{"path", "lte"}});
    events_.Publish("reload", nlohmann::ordered_json::object());
  });
  EXPECT_NE(client.ReadUntil("\n\n").find("path_down"), std::string::npos);
  EXPECT_NE(client.ReadUntil("\n\n").find("reload"), std::string::npos);
  EXPECT_TRUE(client.IsSilentFor(100));
}

TEST_F(HttpServerTest, EventsGoOnBehindTheLastThatWasRead) {
  Start(Options());
  uint64_t id = 0;
  OnLoop([&] {
    for (int i = 0; i < 3; ++i) events_.Publish("event" + std::to_string(i), {{"i", i}});
    id = events_.last_id();
  });
  const auto stream_after = [this](const std::string& last_id) {
    HttpClient client(endpoint());
    client.Send(Get("/v1/events", "Last-Event-ID: " + last_id + "\r\n"));
    EXPECT_EQ(client.ReadHead().status, 200);
    client.ReadUntil("\n\n");
    return client.ReadUntil("event2\n");
  };
  const std::string known = stream_after(std::to_string(id - 2));
  EXPECT_EQ(known.find("missed"), std::string::npos);
  EXPECT_EQ(known.find("event0"), std::string::npos);
  EXPECT_NE(known.find("event1"), std::string::npos);
  const std::string unknown = stream_after("5");
  EXPECT_TRUE(unknown.starts_with("event: missed\ndata: {}\n\n")) << unknown;
  EXPECT_NE(unknown.find("event0"), std::string::npos);
  EXPECT_EQ(StatusOf(Get("/v1/events", "Last-Event-ID: x\r\n")), 400);
}

TEST_F(HttpServerTest, FollowerThatDoesNotReadIsDroppedAndOthersAreNot) {
  Start(Options());
  HttpClient slow(endpoint(), 4096);
  HttpClient quick(endpoint());
  for (HttpClient* client : {&slow, &quick}) {
    client->Send(Get("/v1/events"));
    EXPECT_EQ(client->ReadHead().status, 200);
    client->ReadUntil("\n\n");
  }
  const std::string text(4000, 'x');
  for (int i = 0; i < 150; ++i) {
    OnLoop([&] {
      for (int j = 0; j < 50; ++j) events_.Publish("e", {{"i", i * 50 + j}, {"text", text}});
    });
    for (int j = 0; j < 50; ++j) {
      const std::string event = quick.ReadUntil("\n\n");
      ASSERT_NE(event.find(absl::StrCat("\"i\":", i * 50 + j, ",")), std::string::npos);
    }
  }
  size_t followers = 0;
  OnLoop([&] { followers = events_.followers(); });
  EXPECT_EQ(followers, 1u);
}

TEST_F(HttpServerTest, StreamsShowThatTheyAreAliveAndEndWithTheirClient) {
  HttpServerOptions options = Options();
  options.alive_interval = 100ms;
  options.idle_timeout = 200ms;
  Start(options);
  size_t followers = 1;
  {
    HttpClient client(endpoint());
    client.Send(Get("/v1/events"));
    client.ReadHead();
    client.ReadUntil("\n\n");
    for (int i = 0; i < 4; ++i) EXPECT_EQ(client.ReadUntil("\n\n"), ": alive\n\n");
  }
  for (int i = 0; i < 100 && followers != 0; ++i) {
    std::this_thread::sleep_for(20ms);
    OnLoop([&] { followers = events_.followers(); });
  }
  EXPECT_EQ(followers, 0u);
}

TEST_F(HttpServerTest, StreamsAreBounded) {
  HttpServerOptions options = Options();
  options.max_streams = 3;
  options.max_streams_per_address = 2;
  Start(options);
  const auto open = [this](std::vector<std::unique_ptr<HttpClient>>& to) {
    to.push_back(std::make_unique<HttpClient>(endpoint()));
    to.back()->Send(Get("/v1/events"));
    return to.back()->ReadAnswer();
  };
  std::vector<std::unique_ptr<HttpClient>> streams;
  EXPECT_EQ(open(streams).status, 200);
  EXPECT_EQ(open(streams).status, 200);
  const HttpAnswer refused = open(streams);
  EXPECT_EQ(refused.status, 429);
  EXPECT_EQ(CodeIn(refused), "too_many_requests");
  // A refused stream leaves a connection that can be asked for more.
  streams.back()->Send(Get("/v1/status"));
  EXPECT_EQ(streams.back()->ReadAnswer().status, 200);
  const std::string head = "HEAD /v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n";
  streams.pop_back();
  streams.pop_back();
  for (int i = 0; i < 100; ++i) {
    size_t followers = 0;
    OnLoop([&] { followers = events_.followers(); });
    if (followers == 1) break;
    std::this_thread::sleep_for(20ms);
  }
  EXPECT_EQ(StatusOf(head), 200);
  EXPECT_EQ(open(streams).status, 200);
}

}  // namespace
}  // namespace braid::http_server_test
