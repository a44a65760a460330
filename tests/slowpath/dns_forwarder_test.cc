// What becomes of a query of DNS: whom it is sent to and by what, which answers are taken for it,
// and what its program gets. Servers are sockets of this machine, served in the same loop.
#include "slowpath/dns_forwarder.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ip/udp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/write.hpp>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <deque>
#include <map>
#include <random>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include "fastpath/socks5_udp.h"

namespace braid::dns_forwarder_test {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using asio::ip::udp;
using boost::system::error_code;
using std::chrono::milliseconds;
using Message = std::vector<uint8_t>;
using To = EgressAction::To;

constexpr EgressAction kDirect{To::kDirect};
constexpr EgressAction kGroup{To::kGroup, 7};
constexpr DurationNs kShortNs = 20 * kMillisecondNs;
constexpr uint8_t kTruncatedBit = 2;  // of the third byte
const IpAddress kLoopback = *IpAddress::Parse("127.0.0.1");
const Endpoint kClient{*IpAddress::Parse("10.0.0.2"), 4000, 0};

void Append(Message& to, const Message& more) { to.insert(to.end(), more.begin(), more.end()); }

// For the addresses of "<label>.test".
Message Query(const std::string& label, uint16_t id = 1) {
  Message message = {0, 0, 0x01, 0, 0, 1, 0, 0, 0, 0, 0, 0};
  StoreBe16(&message[0], id);
  message.push_back(static_cast<uint8_t>(label.size()));
  message.insert(message.end(), label.begin(), label.end());
  Append(message, {4, 't', 'e', 's', 't', 0, 0, 1, 0, 1});
  return message;
}

Message QueryWithEdns(const std::string& label, uint16_t udp_bytes) {
  Message message = Query(label);
  message[11] = 1;
  Append(message, {0, 0, 41, 0, 0, 0, 0, 0, 0, 0, 0});
  StoreBe16(&message[message.size() - 8], udp_bytes);
  return message;
}

// With addresses from 192.0.2.<host> on.
Message Answer(Message query, uint8_t host, uint16_t addresses = 1, uint32_t ttl_s = 60) {
  size_t at = kDnsHeaderBytes;
  while (query[at] != 0) at += 1u + query[at];
  query.resize(at + 5);
  query[2] |= 0x80;
  query[3] = 0x80;
  query[11] = 0;
  StoreBe16(&query[6], addresses);
  for (uint16_t i = 0; i < addresses; ++i) {
    Append(query, {0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4, 192, 0, 2, 0});
    StoreBe32(&query[query.size() - 10], ttl_s);
    query.back() = static_cast<uint8_t>(host + i);
  }
  return query;
}

Message Truncated(Message answer) {
  answer[2] |= kTruncatedBit;
  return answer;
}

Message Framed(const Message& message) {
  Message framed(2);
  StoreBe16(framed.data(), static_cast<uint16_t>(message.size()));
  Append(framed, message);
  return framed;
}

uint16_t IdOf(const Message& message) { return LoadBe16(message.data()); }
std::string NameIn(const Message& query) { return ReadDnsQuery(query)->question.name; }
uint32_t TtlIn(const Message& answer) { return ReadDnsAnswer(answer)->least_ttl_s; }
bool IsError(const Message& answer) {
  const auto read = ReadDnsAnswer(answer);
  return read && read->rcode == kDnsServerFailure;
}

template <typename AsioEndpoint>
Endpoint ToEndpoint(const AsioEndpoint& from) {
  sockaddr_storage at{};
  std::memcpy(&at, from.data(), from.size());
  return Endpoint::From(at);
}

// Keeps what comes, and from whom.
class DatagramServer {
 public:
  explicit DatagramServer(asio::io_context& io)
      : socket_(io, udp::endpoint(asio::ip::address_v4::loopback(), 0)) {
    Receive();
  }
  Endpoint endpoint() const { return ToEndpoint(socket_.local_endpoint()); }
  void Send(const Message& message, size_t to = SIZE_MAX) {
    error_code ignored;
    socket_.send_to(asio::buffer(message), to == SIZE_MAX ? senders.back() : senders.at(to), 0,
                    ignored);
  }
  void Close() { socket_.close(); }

  std::vector<Message> received;
  std::vector<udp::endpoint> senders;
  std::function<void(const Message&)> on_message = [](const Message&) {};

 private:
  void Receive() {
    socket_.async_receive_from(asio::buffer(buffer_), from_,
                               [this](const error_code& error, size_t bytes) {
                                 if (error == asio::error::operation_aborted) return;
                                 if (error) return Receive();
                                 received.emplace_back(buffer_.begin(), buffer_.begin() + bytes);
                                 senders.push_back(from_);
                                 on_message(received.back());
                                 if (socket_.is_open()) Receive();
                               });
  }

  udp::socket socket_;
  udp::endpoint from_;
  std::array<uint8_t, 65536> buffer_;
};

// Keeps what comes on each connection, cut into messages.
class StreamServer {
 public:
  explicit StreamServer(asio::io_context& io)
      : acceptor_(io, tcp::endpoint(asio::ip::address_v4::loopback(), 0)) {
    Accept();
  }
  Endpoint endpoint() const { return ToEndpoint(acceptor_.local_endpoint()); }
  void SendBytes(const Message& bytes, size_t connection = SIZE_MAX) {
    error_code ignored;
    asio::write(At(connection), asio::buffer(bytes), ignored);
  }
  void Send(const Message& message, size_t connection = SIZE_MAX) {
    SendBytes(Framed(message), connection);
  }
  void Hang(size_t connection = SIZE_MAX) { At(connection).close(); }
  size_t connections() const { return connections_.size(); }

  std::vector<Message> received;
  std::function<void(const Message&)> on_message = [](const Message&) {};

 private:
  struct Connection {
    tcp::socket socket;
    Message input;
    std::array<uint8_t, 4096> buffer;
  };
  tcp::socket& At(size_t connection) {
    return (connection == SIZE_MAX ? connections_.back() : connections_.at(connection)).socket;
  }
  void Accept() {
    acceptor_.async_accept([this](const error_code& error, tcp::socket socket) {
      if (error) return;
      connections_.push_back({std::move(socket), {}, {}});
      connections_.back().socket.set_option(tcp::no_delay(true));
      Read(connections_.back());
      Accept();
    });
  }
  void Read(Connection& of) {
    of.socket.async_read_some(
        asio::buffer(of.buffer), [this, &of](const error_code& error, size_t bytes) {
          if (error) return;
          of.input.insert(of.input.end(), of.buffer.begin(), of.buffer.begin() + bytes);
          TakeMessages(of);
          if (of.socket.is_open()) Read(of);
        });
  }
  void TakeMessages(Connection& of) {
    while (of.input.size() >= 2 && of.input.size() >= 2u + LoadBe16(of.input.data())) {
      const auto end = of.input.begin() + 2 + LoadBe16(of.input.data());
      received.emplace_back(of.input.begin() + 2, end);
      of.input.erase(of.input.begin(), end);
      on_message(received.back());
    }
  }

  tcp::acceptor acceptor_;
  std::deque<Connection> connections_;
};

// Greets, so that there are control connections.
class SocksServer {
 public:
  explicit SocksServer(asio::io_context& io)
      : acceptor_(io, tcp::endpoint(asio::ip::address_v4::loopback(), 0)) {
    Accept();
  }
  Endpoint endpoint() const { return ToEndpoint(acceptor_.local_endpoint()); }
  void Hang() { connections_.back().close(); }
  size_t connections() const { return connections_.size(); }
  bool IsClosed(size_t connection) {
    std::array<uint8_t, 64> bytes;
    ssize_t got = 0;
    do {
      got = recv(connections_.at(connection).native_handle(), bytes.data(), bytes.size(),
                 MSG_DONTWAIT);
    } while (got > 0);
    return got == 0;
  }

 private:
  void Accept() {
    acceptor_.async_accept([this](const error_code& error, tcp::socket socket) {
      if (error) return;
      connections_.push_back(std::move(socket));
      constexpr std::array<uint8_t, 2> kNoLogin = {5, 0};
      asio::write(connections_.back(), asio::buffer(kNoLogin));
      Accept();
    });
  }

  tcp::acceptor acceptor_;
  std::deque<tcp::socket> connections_;
};

class DnsForwarderTest : public ::testing::Test {
 protected:
  struct Told {
    Endpoint client;
    Endpoint server;
    Message answer;
  };
  using Learned = std::tuple<std::string, IpAddress, uint32_t>;

  DnsForwarderTest() {
    options_.on_answer = [this](const Endpoint& client, const Endpoint& server, Message answer) {
      told_.push_back({client, server, std::move(answer)});
    };
    options_.on_learned = [this](const IpAddress&, const DnsAddress& one) {
      learned_.emplace_back(one.name, one.address, one.ttl_s);
      told_when_learned_ = told_.size();
    };
    // All ways by TCP lead to the same server.
    options_.ways.connect = [this](const EgressAction&, const Endpoint& to,
                                   TcpDialer::OnDialed done) {
      if (is_cut_off_) {
        return asio::post(io_, [done = std::move(done)] { done(NotDialed(ENETUNREACH)); });
      }
      connected_to_.push_back(to);
      dialer_.Dial(stream_server_.endpoint(), std::move(done));
    };
    options_.ways.associate = [this](const EgressAction&, UpstreamGroup::OnAssociated done) {
      ++associations_;
      asio::post(io_, [done = std::move(done)] { done({}); });
    };
  }

  // Answers the greeting, and says that `relay_` relays.
  void LetGroupsRelay() {
    options_.ways.associate = [this](const EgressAction&, UpstreamGroup::OnAssociated done) {
      if (is_cut_off_) return asio::post(io_, [done = std::move(done)] { done({}); });
      ++associations_;
      auto control = Socks5Connection::Make(io_, nullptr, Socks5Connection::Mode::kInTurn);
      controls_.made.push_back(control);
      control->Greet(socks_.endpoint(), kSecondNs,
                     [this, control, done = std::move(done)](const Socks5Outcome& outcome) {
                       ASSERT_TRUE(outcome.ok());
                       UpstreamGroup::Association made;
                       made.control = control;
                       made.relay = relay_.endpoint();
                       done(std::move(made));
                     });
    };
  }

  DnsForwarder& Forwarder() {
    if (!forwarder_) forwarder_.emplace(io_, options_);
    return *forwarder_;
  }
  void Ask(const Message& query, const EgressAction& by = kDirect) {
    Forwarder().Ask(kClient, server_.endpoint(), by, query);
  }
  DnsForwarder::Totals totals() { return Forwarder().totals(); }

  template <typename Condition>
  [[nodiscard]] bool RunUntil(Condition&& condition) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(10);
    while (!condition() && std::chrono::steady_clock::now() < end) {
      io_.run_one_for(milliseconds(10));
    }
    return condition();
  }
  // What is there already is taken.
  void Settle() {
    for (int i = 0; i < 100 && io_.poll() > 0; ++i) {
    }
  }
  [[nodiscard]] bool RunUntilTold(size_t count) {
    return RunUntil([&] { return told_.size() >= count; }) && told_.size() == count;
  }
  [[nodiscard]] bool RunUntilAsked(size_t count) {
    return RunUntil([&] { return server_.received.size() >= count; });
  }
  [[nodiscard]] bool RunUntilAskedByStream(size_t count) {
    return RunUntil([&] { return stream_server_.received.size() >= count; });
  }
  // A datagram of the relay.
  Message Relayed(const Message& message, const Endpoint& from) const {
    Message datagram(kMaxSocks5UdpHeaderBytes);
    datagram.resize(WriteSocks5UdpHeader(from.address, from.port, datagram));
    Append(datagram, message);
    return datagram;
  }
  Message WithoutHeader(const Message& datagram) const {
    const auto header = ReadSocks5UdpHeader(datagram);
    return {datagram.begin() + static_cast<ptrdiff_t>(header->length), datagram.end()};
  }

  asio::io_context io_;
  // One that is not granted yet when a test ends would keep itself.
  struct Controls {
    ~Controls() {
      for (const auto& one : made) one->Close();
    }
    std::vector<std::shared_ptr<Socks5Connection>> made;
  };
  Controls controls_;
  DatagramServer server_{io_};
  DatagramServer other_server_{io_};
  DatagramServer relay_{io_};
  StreamServer stream_server_{io_};
  SocksServer socks_{io_};
  TcpDialer dialer_{io_, milliseconds(5000)};
  DnsForwarder::Options options_;
  std::optional<DnsForwarder> forwarder_;
  std::vector<Told> told_;
  std::vector<Learned> learned_;
  size_t told_when_learned_ = SIZE_MAX;
  std::vector<Endpoint> connected_to_;
  int associations_ = 0;
  bool is_cut_off_ = false;  // from groups
};

TEST_F(DnsForwarderTest, AnswersInTheNameOfWhomTheProgramAsked) {
  Ask(Query("WwW", 0x1234));
  ASSERT_TRUE(RunUntilAsked(1));
  Message answer = Answer(server_.received[0], 1);
  answer[kDnsHeaderBytes + 1] = 'w';
  server_.Send(answer);
  ASSERT_TRUE(RunUntilTold(1));
  EXPECT_EQ(told_[0].client, kClient);
  EXPECT_EQ(told_[0].server, server_.endpoint());
  EXPECT_EQ(told_[0].answer, Answer(Query("WwW", 0x1234), 1)) << "by its id and spelling";
  EXPECT_EQ(totals().queries, 1u);
  EXPECT_EQ(totals().answered, 1u);
  EXPECT_EQ(totals().under_way, 0u);
}

TEST_F(DnsForwarderTest, SaysWhatItLearnsBeforeTheProgramDoes) {
  Ask(Query("www"));
  ASSERT_TRUE(RunUntilAsked(1));
  server_.Send(Answer(server_.received[0], 5, 2, 70));
  ASSERT_TRUE(RunUntilTold(1));
  EXPECT_EQ(told_when_learned_, 0u);
  EXPECT_EQ(learned_, (std::vector<Learned>{{"www.test", *IpAddress::Parse("192.0.2.5"), 70},
                                            {"www.test", *IpAddress::Parse("192.0.2.6"), 70}}));
}

TEST_F(DnsForwarderTest, AsksByIdsThatNobodyKnows) {
  std::set<uint16_t> ids;
  for (uint16_t i = 0; i < 50; ++i) Ask(Query("a" + std::to_string(i), i));
  ASSERT_TRUE(RunUntilAsked(50));
  uint16_t in_order = 0;
  for (size_t i = 0; i < 50; ++i) {
    ids.insert(IdOf(server_.received[i]));
    in_order += i > 0 && IdOf(server_.received[i]) == IdOf(server_.received[i - 1]) + 1;
  }
  EXPECT_EQ(ids.size(), 50u);
  EXPECT_LT(in_order, 5);
  EXPECT_EQ(std::set<udp::endpoint>(server_.senders.begin(), server_.senders.end()).size(), 1u);
}

TEST_F(DnsForwarderTest, ARepeatedQueryIsSentAgainAndAnsweredOnce) {
  Ask(Query("a"));
  ASSERT_TRUE(RunUntilAsked(1));
  Ask(Query("a"));
  ASSERT_TRUE(RunUntilAsked(2));
  EXPECT_EQ(server_.received[0], server_.received[1]);
  server_.Send(Answer(server_.received[0], 1));
  server_.Send(Answer(server_.received[1], 1));
  ASSERT_TRUE(RunUntil([&] { return totals().unasked == 1; }));
  EXPECT_EQ(told_.size(), 1u);
  EXPECT_EQ(totals().repeated, 1u);
  EXPECT_EQ(totals().queries, 2u);
}

TEST_F(DnsForwarderTest, TellsQueriesApartByClientServerIdAndQuestion) {
  const Endpoint neighbour{kClient.address, 4001, 0};
  Ask(Query("a"));
  Ask(Query("b"));
  Ask(Query("a", 2));
  Forwarder().Ask(neighbour, server_.endpoint(), kDirect, Query("a"));
  Forwarder().Ask(kClient, other_server_.endpoint(), kDirect, Query("a"));
  EXPECT_EQ(totals().under_way, 5u);
  ASSERT_TRUE(RunUntilAsked(2)) << "once for all who ask the same";
  ASSERT_TRUE(RunUntil([&] { return !other_server_.received.empty(); }));
  for (const Message& query : server_.received) server_.Send(Answer(query, 1));
  other_server_.Send(Answer(other_server_.received[0], 2));
  ASSERT_TRUE(RunUntilTold(5));
  std::set<std::tuple<Endpoint, Endpoint, Message>> told;
  for (const Told& one : told_) told.emplace(one.client, one.server, one.answer);
  EXPECT_EQ(told, (std::set<std::tuple<Endpoint, Endpoint, Message>>{
                      {kClient, server_.endpoint(), Answer(Query("a"), 1)},
                      {kClient, server_.endpoint(), Answer(Query("b"), 1)},
                      {kClient, server_.endpoint(), Answer(Query("a", 2), 1)},
                      {neighbour, server_.endpoint(), Answer(Query("a"), 1)},
                      {kClient, other_server_.endpoint(), Answer(Query("a"), 2)}}));
}

// Each of those would be one more id that a forged answer may have.
TEST_F(DnsForwarderTest, OfThoseThatCannotShareAnAnswerFewAreAskedAtOnce) {
  Message query = QueryWithEdns("a", 1232);
  StoreBe16(&query[query.size() - 2], 4);
  Append(query, {0, 10, 0, 0});  // an empty cookie
  for (uint16_t id = 1; id <= 20; ++id) {
    StoreBe16(&query[0], id);
    Ask(query);
  }
  EXPECT_EQ(totals().refused, 20u - kMaxAlikeDnsQueries);
  ASSERT_TRUE(RunUntilAsked(kMaxAlikeDnsQueries));
  for (const Message& one : server_.received) server_.Send(Answer(one, 1));
  ASSERT_TRUE(RunUntilTold(kMaxAlikeDnsQueries));
  Ask(query);
  EXPECT_EQ(totals().under_way, 1u);
}

TEST_F(DnsForwarderTest, WhatCannotBeReadGoesNowhere) {
  Ask({1, 2, 3});
  Ask(Answer(Query("a"), 1));
  Message huge = Query("a");
  huge[11] = 1;
  const auto option_bytes = static_cast<uint16_t>(kMaxDnsQueryBytes);
  Append(huge, {0, 0, 41, 4, 0, 0, 0, 0, 0, static_cast<uint8_t>(option_bytes >> 8),
                static_cast<uint8_t>(option_bytes)});
  huge.resize(huge.size() + option_bytes);
  ASSERT_TRUE(ReadDnsQuery(huge));
  Ask(huge);
  EXPECT_EQ(totals().malformed, 3u);
  EXPECT_EQ(totals().under_way, 0u);
}

// --- Which answers count ---

TEST_F(DnsForwarderTest, TakesNoAnswerThatIsToSomethingElse) {
  Ask(Query("a"));
  ASSERT_TRUE(RunUntilAsked(1));
  const Message right = Answer(server_.received[0], 1);
  Message other_id = right, other_name = right, other_type = right, no_question = right;
  StoreBe16(&other_id[0], static_cast<uint16_t>(IdOf(right) + 1));
  other_name[kDnsHeaderBytes + 1] = 'b';
  other_type[kDnsHeaderBytes + 9] = kDnsTypeAaaa;
  no_question[5] = 0;
  no_question.erase(no_question.begin() + kDnsHeaderBytes, no_question.begin() + 24);
  for (const Message& wrong :
       {other_id, other_name, other_type, no_question, server_.received[0], Message{1, 2, 3}, {}}) {
    server_.Send(wrong);
  }
  ASSERT_TRUE(RunUntil([&] { return totals().unasked == 7; }));
  EXPECT_TRUE(told_.empty());
  EXPECT_TRUE(learned_.empty());
  server_.Send(right);
  EXPECT_TRUE(RunUntilTold(1));
}

TEST_F(DnsForwarderTest, TakesNoAnswerFromSomebodyElse) {
  Ask(Query("a"));
  ASSERT_TRUE(RunUntilAsked(1));
  other_server_.senders = server_.senders;
  other_server_.Send(Answer(server_.received[0], 66));
  Settle();
  EXPECT_TRUE(told_.empty());
  server_.Send(Answer(server_.received[0], 1));
  ASSERT_TRUE(RunUntilTold(1));
  EXPECT_EQ(told_[0].answer, Answer(Query("a"), 1));
}

TEST_F(DnsForwarderTest, ThatIsNotAnsweredInTimeIsAnError) {
  options_.timeout_ns = kShortNs;
  Ask(Query("a", 9));
  ASSERT_TRUE(RunUntilTold(1));
  EXPECT_EQ(told_[0].answer, MakeDnsError(Query("a", 9), kDnsServerFailure));
  EXPECT_EQ(totals().timed_out, 1u);
  EXPECT_EQ(totals().under_way, 0u);
  server_.Send(Answer(server_.received[0], 1));
  EXPECT_TRUE(RunUntil([&] { return totals().unasked == 1; }));
  EXPECT_EQ(told_.size(), 1u);
  // And the next one begins anew.
  Ask(Query("a", 9));
  EXPECT_TRUE(RunUntilAsked(2));
  EXPECT_EQ(totals().repeated, 0u);
}

TEST_F(DnsForwarderTest, WhereNobodyListensAnErrorComesAtOnce) {
  server_.Close();
  Forwarder().Ask(kClient, Endpoint{kLoopback, 1, 0}, kDirect, Query("a"));
  ASSERT_TRUE(RunUntilTold(1));
  EXPECT_TRUE(IsError(told_[0].answer));
  EXPECT_EQ(totals().unreachable, 1u);
}

// --- What was answered before ---

TEST_F(DnsForwarderTest, AnswersFromMemoryWithWhatIsLeftOfTheTtl) {
  Ask(Query("a", 1));
  ASSERT_TRUE(RunUntilAsked(1));
  server_.Send(Answer(server_.received[0], 1, 1, 60));
  ASSERT_TRUE(RunUntilTold(1));
  learned_.clear();
  const TimeNs told_ns = MonotonicNowNs();
  ASSERT_TRUE(RunUntil([&] { return MonotonicNowNs() >= told_ns + kSecondNs; }));
  Ask(Query("A", 2));
  ASSERT_EQ(told_.size(), 2u);
  EXPECT_EQ(IdOf(told_[1].answer), 2);
  EXPECT_EQ(told_[1].answer[kDnsHeaderBytes + 1], 'A');
  EXPECT_LT(TtlIn(told_[1].answer), 60u);
  EXPECT_GT(TtlIn(told_[1].answer), 50u);
  EXPECT_EQ(totals().from_cache, 1u);
  EXPECT_EQ(totals().answered, 2u);
  EXPECT_EQ(totals().cache.entries, 1u);
  EXPECT_EQ(server_.received.size(), 1u);
  EXPECT_EQ(learned_.size(), 1u) << "who asks now may not have been told before";
}

TEST_F(DnsForwarderTest, WithoutMemoryAsksEachTime) {
  options_.cache.reset();
  for (size_t i = 1; i <= 2; ++i) {
    Ask(Query("a"));
    ASSERT_TRUE(RunUntilAsked(i));
    server_.Send(Answer(server_.received.back(), 1));
    ASSERT_TRUE(RunUntilTold(i));
  }
  EXPECT_EQ(totals().from_cache, 0u);
}

TEST_F(DnsForwarderTest, WhatOneServerSaysIsNotWhatAnotherDoes) {
  Ask(Query("a"));
  ASSERT_TRUE(RunUntilAsked(1));
  server_.Send(Answer(server_.received[0], 1));
  ASSERT_TRUE(RunUntilTold(1));
  Forwarder().Ask(kClient, other_server_.endpoint(), kDirect, Query("a"));
  ASSERT_TRUE(RunUntil([&] { return !other_server_.received.empty(); }));
  other_server_.Send(Answer(other_server_.received[0], 2));
  ASSERT_TRUE(RunUntilTold(2));
  // Nor is what it says when it is asked from elsewhere.
  Ask(Query("a"), kGroup);
  ASSERT_TRUE(RunUntilAskedByStream(1));
  stream_server_.Send(Answer(stream_server_.received[0], 3));
  ASSERT_TRUE(RunUntilTold(3));
  Ask(Query("a"));
  Forwarder().Ask(kClient, other_server_.endpoint(), kDirect, Query("a"));
  Ask(Query("a"), kGroup);
  ASSERT_EQ(told_.size(), 6u);
  for (size_t i = 0; i < 3; ++i) EXPECT_EQ(told_[3 + i].answer.back(), i + 1);
}

// --- Sizes ---

TEST_F(DnsForwarderTest, AnswersThatAreTooLargeForTheProgramAreCutToNothing) {
  Ask(Query("a"));
  ASSERT_TRUE(RunUntilAsked(1));
  const Message large = Answer(server_.received[0], 1, 40);
  ASSERT_GT(large.size(), kMinDnsUdpBytes);
  server_.Send(large);
  ASSERT_TRUE(RunUntilTold(1));
  EXPECT_EQ(told_[0].answer, TruncatedDnsAnswer(Answer(Query("a"), 1, 40)));
  EXPECT_EQ(learned_.size(), 40u);
  // Also from memory.
  Ask(Query("a", 2));
  ASSERT_EQ(told_.size(), 2u);
  EXPECT_TRUE(ReadDnsAnswer(told_[1].answer)->truncated);

  Ask(QueryWithEdns("a", 1232));
  ASSERT_TRUE(RunUntilAsked(2));
  server_.Send(Answer(server_.received[1], 1, 40));
  ASSERT_TRUE(RunUntilTold(3));
  EXPECT_EQ(told_[2].answer, Answer(Query("a"), 1, 40));
}

TEST_F(DnsForwarderTest, ATruncatedAnswerIsAskedForByTcp) {
  Ask(QueryWithEdns("a", 4096));
  ASSERT_TRUE(RunUntilAsked(1));
  server_.Send(Truncated(Answer(server_.received[0], 1)));
  server_.Send(Truncated(Answer(server_.received[0], 1)));
  ASSERT_TRUE(RunUntilAskedByStream(1));
  EXPECT_EQ(connected_to_, std::vector{server_.endpoint()});
  EXPECT_EQ(stream_server_.received[0], server_.received[0]);
  EXPECT_TRUE(told_.empty());
  stream_server_.Send(Answer(stream_server_.received[0], 1, 100));
  ASSERT_TRUE(RunUntilTold(1));
  EXPECT_EQ(told_[0].answer, Answer(Query("a"), 1, 100));
  EXPECT_EQ(totals().over_tcp, 1u);
  EXPECT_EQ(totals().unasked, 0u);
  EXPECT_EQ(learned_.size(), 100u);
  // Others go by datagrams as before.
  Ask(Query("b"));
  EXPECT_TRUE(RunUntilAsked(2));
  EXPECT_EQ(totals().over_tcp, 1u);
}

TEST_F(DnsForwarderTest, ATruncatedAnswerIsBetterThanNone) {
  is_cut_off_ = true;
  Ask(Query("a"));
  ASSERT_TRUE(RunUntilAsked(1));
  server_.Send(Truncated(Answer(server_.received[0], 1)));
  ASSERT_TRUE(RunUntilTold(1));
  EXPECT_EQ(told_[0].answer, Truncated(Answer(Query("a"), 1)));
  EXPECT_EQ(totals().answered, 1u);
  EXPECT_EQ(totals().cache.entries, 0u);
}

TEST_F(DnsForwarderTest, ATruncatedAnswerIsBetterThanOneThatIsLate) {
  options_.timeout_ns = 10 * kShortNs;
  Ask(Query("a"));
  ASSERT_TRUE(RunUntilAsked(1));
  server_.Send(Truncated(Answer(server_.received[0], 1)));
  ASSERT_TRUE(RunUntilTold(1));
  EXPECT_EQ(told_[0].answer, Truncated(Answer(Query("a"), 1)));
  EXPECT_EQ(totals().timed_out, 0u);
}

// --- By TCP ---

TEST_F(DnsForwarderTest, GroupsThatRelayNoDatagramsAreAskedByTcp) {
  Ask(Query("a", 1), kGroup);
  ASSERT_TRUE(RunUntilAskedByStream(1));
  EXPECT_EQ(associations_, 1);
  stream_server_.Send(Answer(stream_server_.received[0], 1));
  ASSERT_TRUE(RunUntilTold(1));
  EXPECT_EQ(told_[0].answer, Answer(Query("a", 1), 1));
  Ask(Query("b", 2), kGroup);
  Forwarder().Ask(kClient, other_server_.endpoint(), kGroup, Query("c", 3));
  ASSERT_TRUE(RunUntilAskedByStream(3));
  EXPECT_EQ(associations_, 1) << "nor for another server";
  EXPECT_EQ(connected_to_, (std::vector{server_.endpoint(), other_server_.endpoint()}));
  EXPECT_EQ(totals().over_tcp, 3u);
  Ask(Query("d", 4), {To::kGroup, 8});
  EXPECT_TRUE(RunUntil([&] { return associations_ == 2; })) << "another group may";
}

TEST_F(DnsForwarderTest, GroupsAreAskedForARelayAgainAfterAWhile) {
  options_.without_datagrams_ns = kShortNs;
  Ask(Query("a"), kGroup);
  ASSERT_TRUE(RunUntilAskedByStream(1));
  const TimeNs refused_ns = MonotonicNowNs();
  ASSERT_TRUE(RunUntil([&] { return MonotonicNowNs() > refused_ns + kShortNs; }));
  Ask(Query("b"), kGroup);
  EXPECT_TRUE(RunUntilAskedByStream(2));
  EXPECT_EQ(associations_, 2);
  EXPECT_EQ(stream_server_.connections(), 1u);
}

TEST_F(DnsForwarderTest, ManyQueriesShareAConnectionAndAreAnsweredInAnyOrder) {
  constexpr size_t kCount = 20;
  for (uint16_t i = 0; i < kCount; ++i) {
    Ask(Query("n" + std::to_string(i), i), kGroup);
    if (i != 5) continue;
    ASSERT_TRUE(RunUntilAskedByStream(1));
  }
  ASSERT_TRUE(RunUntilAskedByStream(kCount));
  EXPECT_EQ(stream_server_.connections(), 1u);
  for (size_t i = kCount; i-- > 0;) {
    const Message& query = stream_server_.received[i];
    stream_server_.Send(Answer(query, static_cast<uint8_t>(NameIn(query)[1])));
  }
  ASSERT_TRUE(RunUntilTold(kCount));
  for (size_t i = 0; i < kCount; ++i) {
    const Message& answer = told_[i].answer;
    const std::string name = "n" + std::to_string(IdOf(answer));
    EXPECT_EQ(answer, Answer(Query(name, IdOf(answer)), static_cast<uint8_t>(name[1])));
  }
}

TEST_F(DnsForwarderTest, AnswersMayComeInPartsOfAnySize) {
  options_.cache.reset();
  const size_t bytes = 2 * Framed(Answer(Query("a"), 1)).size();
  // Cut once at each place, and then everywhere.
  for (size_t cut = 1; cut <= bytes; ++cut) {
    told_.clear();
    stream_server_.received.clear();
    Ask(Query("a", 1), kGroup);
    Ask(Query("b", 2), kGroup);
    ASSERT_TRUE(RunUntilAskedByStream(2));
    Message stream;
    for (const Message& query : stream_server_.received) Append(stream, Framed(Answer(query, 1)));
    ASSERT_EQ(stream.size(), bytes);
    for (size_t at = 0; at < bytes;) {
      const size_t until = cut == bytes ? at + 1 : at < cut ? cut : bytes;
      stream_server_.SendBytes({stream.begin() + static_cast<ptrdiff_t>(at),
                                stream.begin() + static_cast<ptrdiff_t>(until)});
      Settle();
      at = until;
    }
    ASSERT_TRUE(RunUntilTold(2)) << cut;
    std::sort(told_.begin(), told_.end(),
              [](const Told& one, const Told& another) { return one.answer < another.answer; });
    EXPECT_EQ(told_[0].answer, Answer(Query("a", 1), 1));
    EXPECT_EQ(told_[1].answer, Answer(Query("b", 2), 1));
  }
  EXPECT_EQ(stream_server_.connections(), 1u);
}

TEST_F(DnsForwarderTest, MessagesThatAreNoneDoNoHarmToAConnection) {
  Ask(Query("a"), kGroup);
  ASSERT_TRUE(RunUntilAskedByStream(1));
  stream_server_.Send({});
  stream_server_.Send({1, 2, 3});
  stream_server_.Send(Message(65535));
  stream_server_.Send(Answer(stream_server_.received[0], 1));
  ASSERT_TRUE(RunUntilTold(1));
  EXPECT_EQ(totals().unasked, 3u);
}

TEST_F(DnsForwarderTest, AnUnansweredQueryIsAskedOnceMoreWhenItsConnectionEnds) {
  Ask(Query("a"), kGroup);
  ASSERT_TRUE(RunUntilAskedByStream(1));
  stream_server_.SendBytes({0});  // within a message
  Settle();
  stream_server_.Hang();
  ASSERT_TRUE(RunUntilAskedByStream(2));
  EXPECT_EQ(stream_server_.connections(), 2u);
  EXPECT_EQ(stream_server_.received[0], stream_server_.received[1]);
  stream_server_.Send(Answer(stream_server_.received[1], 1));
  ASSERT_TRUE(RunUntilTold(1));
  EXPECT_EQ(totals().over_tcp, 1u);
}

TEST_F(DnsForwarderTest, AConnectionThatEndsTwiceWithoutAnAnswerIsAnError) {
  stream_server_.on_message = [this](const Message&) { stream_server_.Hang(); };
  Ask(Query("a"), kGroup);
  ASSERT_TRUE(RunUntilTold(1));
  EXPECT_TRUE(IsError(told_[0].answer));
  EXPECT_EQ(totals().unreachable, 1u);
  EXPECT_EQ(stream_server_.connections(), 2u);
}

TEST_F(DnsForwarderTest, AServerMayAnswerOneQueryAConnection) {
  stream_server_.on_message = [this](const Message& query) {
    if (stream_server_.connections() > 1) stream_server_.Send(Answer(query, 1));
    stream_server_.Hang();
  };
  for (uint16_t i = 0; i < 5; ++i) Ask(Query("n" + std::to_string(i), i), kGroup);
  ASSERT_TRUE(RunUntilTold(5));
  EXPECT_EQ(totals().answered, 5u);
  EXPECT_EQ(stream_server_.connections(), 6u);
}

TEST_F(DnsForwarderTest, WhereNoConnectionIsToBeHadAnErrorComesAtOnce) {
  is_cut_off_ = true;
  Ask(Query("a"), kGroup);
  ASSERT_TRUE(RunUntilTold(1));
  EXPECT_TRUE(IsError(told_[0].answer));
  EXPECT_EQ(totals().unreachable, 1u);
}

TEST_F(DnsForwarderTest, AConnectionThatNobodyWaitsForEndsQuietly) {
  Ask(Query("a"), kGroup);
  ASSERT_TRUE(RunUntilAskedByStream(1));
  stream_server_.Send(Answer(stream_server_.received[0], 1));
  stream_server_.Hang();
  ASSERT_TRUE(RunUntilTold(1));
  Settle();
  EXPECT_EQ(connected_to_.size(), 1u);
  Ask(Query("b"), kGroup);
  EXPECT_TRUE(RunUntilAskedByStream(2));
  EXPECT_EQ(stream_server_.connections(), 2u);
}

// A server that takes nothing for a while: what the kernel has no room for waits.
TEST_F(DnsForwarderTest, QueriesWaitUntilTheConnectionTakesThem) {
  constexpr uint16_t kCount = 2000;
  Message query = QueryWithEdns("0000", 1232);
  const auto option_bytes = static_cast<uint16_t>(kMaxDnsQueryBytes - query.size());
  StoreBe16(&query[query.size() - 2], option_bytes);
  Append(query, {0, 12, 0, 0});  // padding
  StoreBe16(&query[query.size() - 2], static_cast<uint16_t>(option_bytes - 4));
  query.resize(kMaxDnsQueryBytes);
  Ask(query, kGroup);
  ASSERT_TRUE(RunUntilAskedByStream(1));
  for (uint16_t i = 1; i < kCount; ++i) {
    std::snprintf(reinterpret_cast<char*>(&query[kDnsHeaderBytes + 1]), 5, "%04d", i);
    query[kDnsHeaderBytes + 5] = 4;  // the length of what comes next, where it ends
    Ask(query, kGroup);
  }
  ASSERT_TRUE(RunUntilAskedByStream(kCount));
  std::set<uint16_t> ids;
  for (const Message& one : stream_server_.received) {
    EXPECT_EQ(one.size(), query.size());
    ids.insert(IdOf(one));
  }
  EXPECT_EQ(ids.size(), kCount);
}

// --- Through a relay ---

TEST_F(DnsForwarderTest, GroupsThatRelayDatagramsAreAskedByThem) {
  LetGroupsRelay();
  Ask(Query("a", 1), kGroup);
  Ask(Query("b", 2), kGroup);
  ASSERT_TRUE(RunUntil([&] { return relay_.received.size() == 2; }));
  EXPECT_EQ(associations_, 1);
  const auto header = ReadSocks5UdpHeader(relay_.received[0]);
  ASSERT_TRUE(header);
  EXPECT_EQ(header->address, server_.endpoint().address);
  EXPECT_EQ(header->port, server_.endpoint().port);
  for (const Message& datagram : relay_.received) {
    relay_.Send(Relayed(Answer(WithoutHeader(datagram), 1), server_.endpoint()));
  }
  ASSERT_TRUE(RunUntilTold(2));
  EXPECT_EQ(totals().over_tcp, 0u);
  EXPECT_EQ(totals().unasked, 0u);
}

TEST_F(DnsForwarderTest, ARelayHasToSayThatTheServerAnswered) {
  LetGroupsRelay();
  Ask(Query("a"), kGroup);
  ASSERT_TRUE(RunUntil([&] { return relay_.received.size() == 1; }));
  const Message answer = Answer(WithoutHeader(relay_.received[0]), 1);
  Endpoint other_port = server_.endpoint(), other_address = server_.endpoint();
  ++other_port.port;
  other_address.address.bytes[3] = 9;
  Message fragment = Relayed(answer, server_.endpoint());
  fragment[2] = 1;
  Message by_name = {0, 0, 0, kSocks5AddressDomain, 1, 'x', 0, 53};
  Append(by_name, answer);
  for (const Message& wrong : {Relayed(answer, other_port), Relayed(answer, other_address),
                               fragment, by_name, answer, Message{0, 0, 0}}) {
    relay_.Send(wrong);
  }
  ASSERT_TRUE(RunUntil([&] { return totals().unasked == 6; }));
  EXPECT_TRUE(told_.empty());
  relay_.Send(Relayed(answer, server_.endpoint()));
  EXPECT_TRUE(RunUntilTold(1));
}

TEST_F(DnsForwarderTest, ATruncatedAnswerOfARelayIsAskedForByTcp) {
  LetGroupsRelay();
  Ask(Query("a"), kGroup);
  ASSERT_TRUE(RunUntil([&] { return relay_.received.size() == 1; }));
  relay_.Send(Relayed(Truncated(Answer(WithoutHeader(relay_.received[0]), 1)), server_.endpoint()));
  ASSERT_TRUE(RunUntilAskedByStream(1));
  stream_server_.Send(Answer(stream_server_.received[0], 2));
  ASSERT_TRUE(RunUntilTold(1));
  EXPECT_EQ(told_[0].answer, Answer(Query("a"), 2));
}

TEST_F(DnsForwarderTest, ARelayEndsWithItsControlConnection) {
  LetGroupsRelay();
  Ask(Query("a"), kGroup);
  ASSERT_TRUE(RunUntil([&] { return relay_.received.size() == 1; }));
  socks_.Hang();
  ASSERT_TRUE(RunUntil([&] { return relay_.received.size() == 2; })) << "by another one";
  EXPECT_EQ(associations_, 2);
  EXPECT_NE(relay_.senders[0], relay_.senders[1]);
  relay_.Send(Relayed(Answer(WithoutHeader(relay_.received[1]), 1), server_.endpoint()));
  ASSERT_TRUE(RunUntilTold(1));
  // Nobody waits: the next one is made when it is needed.
  socks_.Hang();
  Settle();
  EXPECT_EQ(associations_, 2);
  Ask(Query("b"), kGroup);
  EXPECT_TRUE(RunUntil([&] { return relay_.received.size() == 3; }));
  EXPECT_EQ(associations_, 3);
}

TEST_F(DnsForwarderTest, ARelayThatEndsTwiceWithoutAnAnswerIsAnError) {
  LetGroupsRelay();
  relay_.on_message = [this](const Message&) { socks_.Hang(); };
  Ask(Query("a"), kGroup);
  ASSERT_TRUE(RunUntilTold(1));
  EXPECT_TRUE(IsError(told_[0].answer));
  EXPECT_EQ(associations_, 2);
}

TEST_F(DnsForwarderTest, WhenARelayHasEndedAndThereIsNoOtherItGoesByTcp) {
  LetGroupsRelay();
  const auto relayed = options_.ways.associate;
  options_.ways.associate = [&](const EgressAction& by, UpstreamGroup::OnAssociated done) {
    if (associations_ == 0) return relayed(by, std::move(done));
    asio::post(io_, [done = std::move(done)] { done({}); });
  };
  Ask(Query("a"), kGroup);
  ASSERT_TRUE(RunUntil([&] { return relay_.received.size() == 1; }));
  socks_.Hang();
  ASSERT_TRUE(RunUntilAskedByStream(1));
  stream_server_.Hang();
  ASSERT_TRUE(RunUntilAskedByStream(2)) << "once more, as ever";
  stream_server_.Send(Answer(stream_server_.received[1], 1));
  ASSERT_TRUE(RunUntilTold(1));
  EXPECT_EQ(totals().answered, 1u);
}

TEST_F(DnsForwarderTest, ARelayThatLosesEverythingIsDoneWithout) {
  LetGroupsRelay();
  options_.timeout_ns = 40 * kShortNs;
  options_.without_datagrams_ns = 40 * kShortNs;
  Ask(Query("a", 1), kGroup);
  const TimeNs asked_ns = MonotonicNowNs();
  ASSERT_TRUE(RunUntilAskedByStream(1));
  EXPECT_GE(MonotonicNowNs(), asked_ns + 20 * kShortNs);
  EXPECT_EQ(relay_.received.size(), 1u);
  EXPECT_TRUE(RunUntil([&] { return socks_.IsClosed(0); }));
  stream_server_.Send(Answer(stream_server_.received[0], 1));
  ASSERT_TRUE(RunUntilTold(1));
  const TimeNs told_ns = MonotonicNowNs();
  Ask(Query("b", 2), kGroup);
  ASSERT_TRUE(RunUntilAskedByStream(2));
  EXPECT_EQ(relay_.received.size(), 1u);
  stream_server_.Send(Answer(stream_server_.received[1], 1));
  ASSERT_TRUE(RunUntilTold(2));
  ASSERT_TRUE(RunUntil([&] { return MonotonicNowNs() >= told_ns + 40 * kShortNs; }));
  Ask(Query("c", 3), kGroup);
  EXPECT_TRUE(RunUntil([&] { return relay_.received.size() == 2; }));
}

TEST_F(DnsForwarderTest, WhatARelayLosesNowAndThenIsAskedForByTcp) {
  LetGroupsRelay();
  options_.timeout_ns = 20 * kShortNs;
  Ask(Query("lost"), kGroup);
  Ask(Query("a"), kGroup);
  ASSERT_TRUE(RunUntil([&] { return relay_.received.size() == 2; }));
  for (const Message& datagram : relay_.received) {
    const Message query = WithoutHeader(datagram);
    if (NameIn(query) == "a.test") relay_.Send(Relayed(Answer(query, 1), server_.endpoint()));
  }
  ASSERT_TRUE(RunUntilAskedByStream(1));
  EXPECT_EQ(NameIn(stream_server_.received[0]), "lost.test");
  Ask(Query("b"), kGroup);
  EXPECT_TRUE(RunUntil([&] { return relay_.received.size() == 3; }));
  EXPECT_EQ(associations_, 1);
}

TEST_F(DnsForwarderTest, ARelayThatIsNotGrantedForLongIsNotWaitedFor) {
  UpstreamGroup::OnAssociated granted;
  options_.ways.associate = [&](const EgressAction&, UpstreamGroup::OnAssociated done) {
    granted = std::move(done);
  };
  options_.timeout_ns = 20 * kShortNs;
  Ask(Query("a", 1), kGroup);
  ASSERT_TRUE(RunUntilAskedByStream(1));
  stream_server_.Send(Answer(stream_server_.received[0], 1));
  ASSERT_TRUE(RunUntilTold(1));
  Ask(Query("b", 2), kGroup);
  ASSERT_TRUE(RunUntilAskedByStream(2));
  granted({});
  stream_server_.Send(Answer(stream_server_.received[1], 1));
  EXPECT_TRUE(RunUntilTold(2));
}

TEST_F(DnsForwarderTest, AConnectionThatIsGoneWithoutAWordIsReplaced) {
  options_.timeout_ns = 40 * kShortNs;
  Ask(Query("a"), kGroup);
  ASSERT_TRUE(RunUntilAskedByStream(1));
  stream_server_.Send(Answer(stream_server_.received[0], 1));
  ASSERT_TRUE(RunUntilTold(1));
  Ask(Query("b"), kGroup);
  Ask(Query("c"), kGroup);
  ASSERT_TRUE(RunUntilAskedByStream(3));
  ASSERT_TRUE(RunUntilAskedByStream(5)) << "both once more";
  EXPECT_EQ(stream_server_.connections(), 2u) << "but by one connection";
  for (size_t i = 3; i < 5; ++i) stream_server_.Send(Answer(stream_server_.received[i], 1), 1);
  EXPECT_TRUE(RunUntilTold(3));
}

// --- Servers in place of whom programs ask ---

TEST_F(DnsForwarderTest, OthersAreAskedInPlaceOfWhomTheProgramAsks) {
  options_.servers = {other_server_.endpoint()};
  Ask(Query("a"));
  ASSERT_TRUE(RunUntil([&] { return !other_server_.received.empty(); }));
  other_server_.Send(Answer(other_server_.received[0], 1));
  ASSERT_TRUE(RunUntilTold(1));
  EXPECT_EQ(told_[0].server, server_.endpoint());
  EXPECT_TRUE(server_.received.empty());
  // What they said is for everybody, whomever he asks.
  Forwarder().Ask(kClient, relay_.endpoint(), kDirect, Query("a"));
  EXPECT_EQ(told_.size(), 2u);
}

TEST_F(DnsForwarderTest, TheNextServerIsAskedWhenOneIsSilent) {
  options_.servers = {server_.endpoint(), other_server_.endpoint()};
  options_.timeout_ns = 40 * kShortNs;
  Ask(Query("a", 1));
  ASSERT_TRUE(RunUntil([&] { return !other_server_.received.empty(); }));
  EXPECT_EQ(server_.received.size(), 1u);
  other_server_.Send(Answer(other_server_.received[0], 2));
  ASSERT_TRUE(RunUntilTold(1));
  EXPECT_EQ(told_[0].answer.back(), 2);
  // From now on that one is asked first, and the other one where it is silent.
  Ask(Query("b", 2));
  ASSERT_TRUE(RunUntil([&] { return other_server_.received.size() == 2; }));
  EXPECT_EQ(server_.received.size(), 1u);
  ASSERT_TRUE(RunUntilAsked(2));
  server_.Send(Answer(server_.received[1], 1));
  ASSERT_TRUE(RunUntilTold(2));
  EXPECT_EQ(totals().timed_out, 0u);
}

TEST_F(DnsForwarderTest, AServerMayAnswerAfterTheNextWasAsked) {
  options_.servers = {server_.endpoint(), other_server_.endpoint()};
  options_.timeout_ns = 40 * kShortNs;
  Ask(Query("a"));
  ASSERT_TRUE(RunUntil([&] { return !other_server_.received.empty(); }));
  Ask(Query("a"));
  ASSERT_TRUE(RunUntilAsked(2)) << "both are reminded";
  ASSERT_TRUE(RunUntil([&] { return other_server_.received.size() == 2; }));
  server_.Send(Answer(server_.received[0], 1));
  ASSERT_TRUE(RunUntilTold(1));
  other_server_.Send(Answer(other_server_.received[0], 2));
  EXPECT_TRUE(RunUntil([&] { return totals().unasked == 1; }));
  EXPECT_EQ(told_.size(), 1u);
}

TEST_F(DnsForwarderTest, OneThatFailsAfterTheNextWasAskedDoesNotHurryThat) {
  options_.servers = {other_server_.endpoint(), server_.endpoint(), relay_.endpoint()};
  options_.timeout_ns = 60 * kShortNs;
  Ask(Query("a"));
  ASSERT_TRUE(RunUntilAsked(1));
  const TimeNs asked_ns = MonotonicNowNs();
  other_server_.Close();
  Ask(Query("a"));
  ASSERT_TRUE(RunUntil([&] { return !relay_.received.empty(); }));
  EXPECT_GE(MonotonicNowNs(), asked_ns + 15 * kShortNs);
  server_.Send(Answer(server_.received[0], 1));
  EXPECT_TRUE(RunUntilTold(1));
}

TEST_F(DnsForwarderTest, TheNextServerIsAskedAtOnceWhenOneCannotBeReached) {
  options_.servers = {Endpoint{kLoopback, 1, 0}, server_.endpoint()};
  options_.timeout_ns = 3600 * kSecondNs;
  Ask(Query("a"));
  ASSERT_TRUE(RunUntilAsked(1));
  server_.Send(Answer(server_.received[0], 1));
  EXPECT_TRUE(RunUntilTold(1));
}

TEST_F(DnsForwarderTest, WhereNoServerAnswersThereIsOneErrorInTheWholeTime) {
  options_.servers = {server_.endpoint(), other_server_.endpoint(), server_.endpoint()};
  options_.timeout_ns = 3 * kShortNs;
  const TimeNs asked_ns = MonotonicNowNs();
  Ask(Query("a"));
  ASSERT_TRUE(RunUntilTold(1));
  EXPECT_GE(MonotonicNowNs(), asked_ns + 3 * kShortNs);
  EXPECT_TRUE(IsError(told_[0].answer));
  EXPECT_EQ(server_.received.size(), 2u);
  EXPECT_EQ(other_server_.received.size(), 1u);
  EXPECT_EQ(totals().timed_out, 1u);
}

// --- Limits, and ends ---

TEST_F(DnsForwarderTest, BeyondTheLimitOfQueriesTheyAreRefused) {
  for (size_t i = 0; i < kMaxDnsQueries; ++i) Ask(Query("a", static_cast<uint16_t>(i)));
  EXPECT_EQ(totals().under_way, kMaxDnsQueries);
  EXPECT_EQ(totals().refused, 0u);
  Ask(Query("a", kMaxDnsQueries));
  EXPECT_EQ(totals().refused, 1u);
  EXPECT_EQ(totals().under_way, kMaxDnsQueries);
  Ask(Query("a", 0));
  EXPECT_EQ(totals().repeated, 1u);
  server_.on_message = [this](const Message& query) { server_.Send(Answer(query, 1)); };
  ASSERT_TRUE(RunUntil([&] { return told_.size() >= 100; }));
  Ask(Query("b"));
  EXPECT_EQ(totals().refused, 1u);
}

TEST_F(DnsForwarderTest, BeyondTheLimitOfChannelsTheOneThatIsIdleGoes) {
  const auto nowhere = [](size_t i) {
    Endpoint at{*IpAddress::Parse("192.0.2.0"), 53, 0};
    at.port = static_cast<uint16_t>(1000 + i);
    return at;
  };
  options_.ways.associate = [](const EgressAction&, const UpstreamGroup::OnAssociated&) {};
  Ask(Query("a"));
  for (size_t i = 1; i < kMaxDnsChannels; ++i) {
    Forwarder().Ask(kClient, nowhere(i), kGroup, Query("a"));
  }
  EXPECT_EQ(totals().channels, kMaxDnsChannels);
  Forwarder().Ask(kClient, nowhere(kMaxDnsChannels), kGroup, Query("a"));
  EXPECT_EQ(totals().refused, 1u);
  EXPECT_EQ(totals().under_way, kMaxDnsChannels);
  ASSERT_TRUE(RunUntilAsked(1));
  server_.Send(Answer(server_.received[0], 1));
  ASSERT_TRUE(RunUntilTold(1));
  Forwarder().Ask(kClient, nowhere(kMaxDnsChannels), kGroup, Query("a"));
  EXPECT_EQ(totals().refused, 1u);
  EXPECT_EQ(totals().channels, kMaxDnsChannels);
  EXPECT_EQ(totals().under_way, kMaxDnsChannels);
}

TEST_F(DnsForwarderTest, ChannelsThatNobodyNeedsClose) {
  LetGroupsRelay();
  options_.idle_ns = kShortNs;
  Ask(Query("a"), kGroup);
  Ask(Query("b"));
  ASSERT_TRUE(RunUntil([&] { return relay_.received.size() == 1; }));
  ASSERT_TRUE(RunUntilAsked(1));
  relay_.Send(Relayed(Answer(WithoutHeader(relay_.received[0]), 1), server_.endpoint()));
  ASSERT_TRUE(RunUntil([&] { return totals().channels == 1; }));
  EXPECT_TRUE(RunUntil([&] { return socks_.IsClosed(0); }));
  server_.Send(Answer(server_.received[0], 1));
  ASSERT_TRUE(RunUntil([&] { return totals().channels == 0; }));
  EXPECT_EQ(told_.size(), 2u);
  Ask(Query("c"));
  ASSERT_TRUE(RunUntilAsked(2));
  server_.Send(Answer(server_.received[1], 1));
  ASSERT_TRUE(RunUntilTold(3));
  EXPECT_TRUE(RunUntil([&] { return totals().channels == 0; }));
}

TEST_F(DnsForwarderTest, WhenTheNetworkChangesAllIsAskedAnew) {
  LetGroupsRelay();
  Ask(Query("old"));
  ASSERT_TRUE(RunUntilAsked(1));
  server_.Send(Answer(server_.received[0], 1));
  ASSERT_TRUE(RunUntilTold(1));
  Ask(Query("a"));
  Ask(Query("b"), kGroup);
  ASSERT_TRUE(RunUntilAsked(2));
  ASSERT_TRUE(RunUntil([&] { return relay_.received.size() == 1; }));
  Forwarder().Reset();
  EXPECT_EQ(totals().cache.entries, 0u);
  ASSERT_TRUE(RunUntilAsked(3));
  ASSERT_TRUE(RunUntil([&] { return relay_.received.size() == 2; }));
  EXPECT_TRUE(RunUntil([&] { return socks_.IsClosed(0); }));
  EXPECT_NE(server_.senders[1], server_.senders[2]);
  server_.Send(Answer(server_.received[1], 66), 1);
  server_.Send(Answer(server_.received[2], 1));
  relay_.Send(Relayed(Answer(WithoutHeader(relay_.received[1]), 1), server_.endpoint()));
  ASSERT_TRUE(RunUntilTold(3));
  EXPECT_EQ(told_[1].answer.back(), 1);
  EXPECT_EQ(told_[2].answer.back(), 1);
}

TEST_F(DnsForwarderTest, OfTheNetworkThatWasNothingIsWaitedFor) {
  options_.timeout_ns = 3600 * kSecondNs;
  LetGroupsRelay();
  Ask(Query("a"), kGroup);
  ASSERT_TRUE(RunUntil([&] { return relay_.received.size() == 1; }));
  is_cut_off_ = true;
  Forwarder().Reset();
  ASSERT_TRUE(RunUntilTold(1));
  EXPECT_TRUE(IsError(told_[0].answer));
  EXPECT_EQ(totals().unreachable, 1u);
}

TEST_F(DnsForwarderTest, AfterCloseNothingIsCalled) {
  LetGroupsRelay();
  options_.timeout_ns = kShortNs;
  Ask(Query("a"));
  Ask(Query("b"), kGroup);
  Ask(Query("c"), {To::kGroup, 8});
  ASSERT_TRUE(RunUntilAsked(1));
  ASSERT_TRUE(RunUntil([&] { return relay_.received.size() == 2; }));
  server_.Send(Answer(server_.received[0], 1));
  relay_.Send(Relayed(Answer(WithoutHeader(relay_.received[1]), 1), server_.endpoint()));
  socks_.Hang();
  Forwarder().Ask(kClient, other_server_.endpoint(), {To::kGroup, 9}, Query("d"));
  Forwarder().Close();
  forwarder_.reset();
  const TimeNs closed_ns = MonotonicNowNs();
  ASSERT_TRUE(RunUntil([&] { return MonotonicNowNs() > closed_ns + 3 * kShortNs; }));
  EXPECT_TRUE(told_.empty());
  EXPECT_TRUE(learned_.empty());
}

TEST_F(DnsForwarderTest, MayBeClosedWhileItTells) {
  options_.on_answer = [this](const Endpoint& client, const Endpoint& server, Message answer) {
    told_.push_back({client, server, std::move(answer)});
    Forwarder().Close();
  };
  stream_server_.on_message = [this](const Message&) { stream_server_.Hang(); };
  for (uint16_t i = 0; i < 5; ++i) Ask(Query("a", i), kGroup);
  ASSERT_TRUE(RunUntilTold(1));
  EXPECT_TRUE(IsError(told_[0].answer));
  Settle();
  EXPECT_EQ(told_.size(), 1u);
  // With another answer behind.
  forwarder_.reset();
  stream_server_.on_message = [](const Message&) {};
  const size_t asked = stream_server_.received.size();
  for (const char* label : {"a", "b"}) Ask(Query(label), kGroup);
  ASSERT_TRUE(RunUntilAskedByStream(asked + 2));
  Message both = Framed(Answer(stream_server_.received[asked], 1));
  Append(both, Framed(Answer(stream_server_.received[asked + 1], 1)));
  stream_server_.SendBytes(both);
  ASSERT_TRUE(RunUntil([&] { return told_.size() == 2; }));
  Settle();
  EXPECT_EQ(told_.size(), 2u);
  // By what is learned: then the answer is not told.
  forwarder_.reset();
  options_.on_learned = [this](const IpAddress&, const DnsAddress&) { Forwarder().Close(); };
  Ask(Query("a"));
  ASSERT_TRUE(RunUntilAsked(1));
  server_.Send(Answer(server_.received[0], 1));
  ASSERT_TRUE(RunUntil([&] { return totals().answered == 1; }));
  EXPECT_EQ(told_.size(), 2u);
}

TEST_F(DnsForwarderTest, MayBeClosedWhenAServerHasJustGone) {
  server_.Close();
  Forwarder().Ask(kClient, Endpoint{kLoopback, 1, 0}, kDirect, Query("a"));
  io_.poll_one();
  Forwarder().Ask(kClient, Endpoint{kLoopback, 1, 0}, kDirect, Query("a"));
  forwarder_.reset();
  Settle();
  EXPECT_TRUE(told_.empty());
}

// Servers that do anything: each query is answered once, or counted as to why not.
TEST_F(DnsForwarderTest, AccountsForEachQuery) {
  std::mt19937 random(11);
  const auto below = [&random](uint32_t limit) { return static_cast<uint32_t>(random() % limit); };
  LetGroupsRelay();
  const auto relayed = options_.ways.associate;
  options_.ways.associate = [&](const EgressAction& by, UpstreamGroup::OnAssociated done) {
    if (below(3) != 0) return relayed(by, std::move(done));
    asio::post(io_, [done = std::move(done)] { done({}); });
  };
  const auto connected = options_.ways.connect;
  options_.ways.connect = [&](const EgressAction& by, const Endpoint& to,
                              TcpDialer::OnDialed done) {
    if (below(5) != 0) return connected(by, to, std::move(done));
    asio::post(io_, [done = std::move(done)] { done(NotDialed(ECONNREFUSED)); });
  };
  const auto some_answer = [&](const Message& query) {
    Message answer = Answer(query, 1, static_cast<uint16_t>(below(3)), below(2));
    if (below(4) == 0) answer[2] |= kTruncatedBit;
    if (below(8) == 0) answer[below(static_cast<uint32_t>(answer.size()))] ^= 1;
    if (below(8) == 0) answer.resize(below(static_cast<uint32_t>(answer.size())));
    return answer;
  };
  for (DatagramServer* server : {&server_, &other_server_}) {
    server->on_message = [&, server](const Message& query) {
      for (uint32_t n = below(3); n > 0; --n) server->Send(some_answer(query));
    };
  }
  relay_.on_message = [&](const Message& datagram) {
    const Endpoint from = below(2) == 0 ? server_.endpoint() : other_server_.endpoint();
    if (below(10) != 0) relay_.Send(Relayed(some_answer(WithoutHeader(datagram)), from));
    if (below(20) == 0) socks_.Hang();
  };
  stream_server_.on_message = [&](const Message& query) {
    if (below(10) != 0) stream_server_.Send(some_answer(query));
    if (below(10) == 0) stream_server_.Hang();
  };
  options_.servers = {server_.endpoint(), other_server_.endpoint()};
  options_.timeout_ns = kShortNs;
  options_.idle_ns = kMillisecondNs;
  options_.without_datagrams_ns = kMillisecondNs;
  options_.cache = DnsCache::Options{.max_entries = 20};
  for (int round = 0; round < 3000; ++round) {
    const auto group = static_cast<uint16_t>(below(3));
    Ask(Query("n" + std::to_string(below(50)), static_cast<uint16_t>(below(20))),
        group == 0 ? kDirect : EgressAction{To::kGroup, group});
    if (below(10) == 0) io_.run_one_for(milliseconds(1));
    if (below(3) == 0) io_.poll_one();
    if (below(500) == 0) Forwarder().Reset();
    const auto now = totals();
    ASSERT_EQ(now.queries, now.answered + now.repeated + now.timed_out + now.unreachable +
                               now.malformed + now.refused + now.under_way);
  }
  ASSERT_TRUE(RunUntil([&] { return totals().under_way == 0; }));
  EXPECT_TRUE(RunUntil([&] { return totals().channels == 0; }));
  EXPECT_EQ(told_.size(), totals().answered + totals().timed_out + totals().unreachable);
  EXPECT_EQ(totals().refused, 0u);
}

// --- What each server said ---

DnsRoute RouteTo(uint16_t port) { return {To::kDirect, 0, {kLoopback, port, 0}}; }

bool Put(DnsCaches& caches, uint16_t port, const std::string& label) {
  const Message query = Query(label);
  caches.Put(RouteTo(port), *ReadDnsQuery(query), Answer(query, 1), kSecondNs);
  return caches.Find(RouteTo(port), *ReadDnsQuery(query), query, kSecondNs).has_value();
}

bool Has(DnsCaches& caches, uint16_t port, const std::string& label) {
  const Message query = Query(label);
  return caches.Find(RouteTo(port), *ReadDnsQuery(query), query, kSecondNs).has_value();
}

TEST(DnsCaches, AreTogetherWithinTheLimitsOfOne) {
  DnsCaches caches({.max_entries = 4});
  for (const char* label : {"a", "b"}) ASSERT_TRUE(Put(caches, 1, label));
  for (const char* label : {"a", "b"}) ASSERT_TRUE(Put(caches, 2, label));
  EXPECT_EQ(caches.totals().entries, 4u);
  EXPECT_TRUE(Has(caches, 1, "a"));
  EXPECT_TRUE(Put(caches, 3, "a"));
  EXPECT_EQ(caches.totals().entries, 3u);
  EXPECT_TRUE(Has(caches, 1, "a") && Has(caches, 1, "b")) << "used later";
  EXPECT_FALSE(Has(caches, 2, "a"));
  // One alone may have it all.
  for (const char* label : {"c", "d"}) EXPECT_TRUE(Put(caches, 1, label));
  EXPECT_EQ(caches.totals().entries, 4u);
  EXPECT_FALSE(Has(caches, 3, "a"));
  EXPECT_TRUE(Put(caches, 1, "e"));
  EXPECT_EQ(caches.totals().entries, 4u);
}

TEST(DnsCaches, AreSoManyAtMost) {
  DnsCaches caches({});
  for (uint16_t port = 1; port <= kMaxDnsCaches; ++port) ASSERT_TRUE(Put(caches, port, "a"));
  EXPECT_TRUE(Has(caches, 1, "a"));
  EXPECT_TRUE(Put(caches, 99, "a"));
  EXPECT_TRUE(Has(caches, 1, "a"));
  EXPECT_FALSE(Has(caches, 2, "a"));
  EXPECT_EQ(caches.totals().entries, kMaxDnsCaches);
  // What is not kept takes no room.
  const Message query = Query("b");
  caches.Put(RouteTo(100), *ReadDnsQuery(query), Answer(query, 1, 1, 0), kSecondNs);
  EXPECT_TRUE(Has(caches, 3, "a"));
  EXPECT_EQ(caches.totals().entries, kMaxDnsCaches);
  caches.Clear();
  EXPECT_EQ(caches.totals().entries, 0u);
}

}  // namespace
}  // namespace braid::dns_forwarder_test
