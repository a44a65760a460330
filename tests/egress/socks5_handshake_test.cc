// A SOCKS5 handshake as RFC 1928 and 1929 have it, however what is sent and read is cut, and as
// servers in the field have it.
#include "egress/socks5_handshake.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <ostream>
#include <string>
#include <vector>

namespace braid::socks5_handshake_test {
namespace {

using ::testing::HasSubstr;

using Buffer = std::vector<uint8_t>;
using Mode = Socks5Handshake::Mode;
using State = Socks5Handshake::State;

constexpr size_t kAll = SIZE_MAX;

const Socks5Credentials kCredentials = {"joe", "pass!"};
const Socks5Target kV4 = {*IpAddress::Parse("192.0.2.7"), "", 443};
const Socks5Target kV6 = {*IpAddress::Parse("2001:db8::1"), "", 65535};
const Socks5Target kDomain = {{}, "www.example.org", 80};

Buffer Joined(const std::vector<Buffer>& parts) {
  Buffer joined;
  for (const Buffer& part : parts) joined.insert(joined.end(), part.begin(), part.end());
  return joined;
}

Buffer Text(const std::string& text) { return {text.begin(), text.end()}; }

const Buffer kOffersNone = {5, 1, 0};
const Buffer kOffersBoth = {5, 2, 2, 0};
const Buffer kOffersPassword = {5, 1, 2};
const Buffer kAuthentication = {1, 3, 'j', 'o', 'e', 5, 'p', 'a', 's', 's', '!'};
const Buffer kConnectV4 = {5, 1, 0, 1, 192, 0, 2, 7, 0x01, 0xbb};

const Buffer kChoosesNone = {5, 0};
const Buffer kChoosesPassword = {5, 2};
const Buffer kAccepts = {1, 0};
const Buffer kSucceeded = {5, 0, 0, 1, 10, 1, 2, 3, 0x12, 0x34};
const Socks5Target kBound = {*IpAddress::Parse("10.1.2.3"), "", 0x1234};

const Buffer kSucceededV6 = {5, 0, 0, 4, 0x20, 0x01, 0x0d, 0xb8, 0,    0,    0,
                             0, 0, 0, 0, 0,    0,    0,    0,    0x01, 0x12, 0x34};

Buffer SucceededDomain(const std::string& domain) {
  return Joined({{5, 0, 0, 3, static_cast<uint8_t>(domain.size())}, Text(domain), {0x12, 0x34}});
}

struct Case {
  const Socks5Credentials* credentials = nullptr;
  Mode mode = Mode::kInTurn;
  Socks5Target target = kV4;
  Socks5Command command = Socks5Command::kConnect;
};

// What has become of a handshake, and of the server's bytes.
struct Outcome {
  State state;
  Socks5Failure failure;
  uint8_t reply;
  Socks5Target bound;
  bool pipelining_may_be_why;
  Buffer sent;
  Buffer left;

  bool operator==(const Outcome&) const = default;
};

void PrintTo(const Outcome& outcome, std::ostream* to) {
  *to << "state " << static_cast<int>(outcome.state) << ", " << outcome.sent.size()
      << " bytes sent, " << outcome.left.size()
      << " left: " << Describe(outcome.failure, outcome.reply);
}

// Writes up to `bytes` of what there is to be written.
Buffer Send(Socks5Handshake& handshake, size_t bytes = kAll) {
  const Bytes output = handshake.output();
  const Bytes taken = output.first(std::min(bytes, output.size()));
  const Buffer sent(taken.begin(), taken.end());
  handshake.OnSent(sent.size());
  return sent;
}

// Reads up to `bytes` of those that are wanted, as a socket would.
void Receive(Socks5Handshake& handshake, Buffer& from, size_t bytes = kAll) {
  const size_t taken = std::min({bytes, handshake.wanted_bytes(), from.size()});
  const Buffer input(from.begin(), from.begin() + static_cast<ptrdiff_t>(taken));
  from.erase(from.begin(), from.begin() + static_cast<ptrdiff_t>(taken));
  handshake.OnInput(input);
}

// A server says `answers`, and closes when it is read beyond them. `first_sent_bytes` are what the
// socket takes of each output first; it takes all the rest then.
Outcome Perform(const Case& of, Buffer answers, size_t read_bytes = kAll,
                size_t first_sent_bytes = kAll) {
  Socks5Handshake handshake(of.credentials, of.mode);
  if (of.mode == Mode::kPipelined) handshake.Request(of.command, of.target);
  Buffer sent;
  while (true) {
    for (const size_t bytes : {first_sent_bytes, kAll}) {
      sent = Joined({sent, Send(handshake, bytes)});
    }
    if (handshake.state() == State::kGreeted) {
      EXPECT_EQ(handshake.wanted_bytes(), 0u);
      handshake.Request(of.command, of.target);
    } else if (handshake.wanted_bytes() == 0) {
      break;
    } else if (answers.empty()) {
      handshake.OnClosed();
    } else {
      Receive(handshake, answers, read_bytes);
    }
  }
  const bool done = handshake.state() == State::kDone;
  return {handshake.state(),
          handshake.failure(),
          handshake.reply(),
          done ? handshake.bound() : Socks5Target{},
          handshake.pipelining_may_be_why(),
          sent,
          answers};
}

void ExpectFailure(const Outcome& outcome, Socks5Failure failure) {
  EXPECT_EQ(outcome.state, State::kFailed);
  EXPECT_EQ(outcome.failure, failure) << Describe(outcome.failure, outcome.reply);
}

// All ways through a handshake that ends well, with what is sent and answered.
struct Way {
  const char* name;
  Case of;
  Buffer sent;
  Buffer answers;
};

std::vector<Way> Ways() {
  const Buffer answers = Joined({kChoosesPassword, kAccepts, kSucceeded});
  return {
      {"without credentials",
       {},
       Joined({kOffersNone, kConnectV4}),
       Joined({kChoosesNone, kSucceeded})},
      {"with credentials",
       {&kCredentials},
       Joined({kOffersBoth, kAuthentication, kConnectV4}),
       answers},
      {"with credentials not asked for",
       {&kCredentials},
       Joined({kOffersBoth, kConnectV4}),
       Joined({kChoosesNone, kSucceeded})},
      {"pipelined",
       {nullptr, Mode::kPipelined},
       Joined({kOffersNone, kConnectV4}),
       Joined({kChoosesNone, kSucceeded})},
      {"pipelined with credentials",
       {&kCredentials, Mode::kPipelined},
       Joined({kOffersPassword, kAuthentication, kConnectV4}),
       answers},
  };
}

TEST(Socks5Handshake, EveryWaySendsTheBytesOfTheStandards) {
  for (const Way& way : Ways()) {
    SCOPED_TRACE(way.name);
    const Outcome outcome = Perform(way.of, way.answers);
    EXPECT_EQ(outcome.state, State::kDone);
    EXPECT_EQ(outcome.failure, Socks5Failure::kNone);
    EXPECT_EQ(outcome.reply, 0);
    EXPECT_EQ(outcome.bound, kBound);
    EXPECT_EQ(outcome.sent, way.sent);
    EXPECT_FALSE(outcome.pipelining_may_be_why);
  }
}

TEST(Socks5Handshake, WritesEveryTargetAndCommand) {
  const auto request = [](Socks5Command command, const Socks5Target& target) {
    const Outcome outcome = Perform({.target = target, .command = command}, kChoosesNone);
    return Buffer(outcome.sent.begin() + 3, outcome.sent.end());
  };
  EXPECT_EQ(request(Socks5Command::kConnect, kV4), kConnectV4);
  EXPECT_EQ(request(Socks5Command::kConnect, kV6),
            (Buffer{5, 1, 0, 4, 0x20, 0x01, 0x0d, 0xb8, 0,    0,    0,
                    0, 0, 0, 0, 0,    0,    0,    0,    0x01, 0xff, 0xff}));
  EXPECT_EQ(request(Socks5Command::kConnect, kDomain),
            Joined({{5, 1, 0, 3, 15}, Text("www.example.org"), {0, 80}}));
  EXPECT_EQ(request(Socks5Command::kUdpAssociate, {IpAddress::Any(IpAddress::Family::kV4), "", 0}),
            (Buffer{5, 3, 0, 1, 0, 0, 0, 0, 0, 0}));
  const std::string longest(255, 'd');
  EXPECT_EQ(request(Socks5Command::kConnect, {{}, longest, 1}),
            Joined({{5, 1, 0, 3, 255}, Text(longest), {0, 1}}));
}

TEST(Socks5Handshake, TheLongestCredentialsAndDomainFit) {
  const Socks5Credentials longest = {std::string(255, 'u'), std::string(255, 'p')};
  const Socks5Target domain = {{}, std::string(255, 'd'), 443};
  const Buffer authentication =
      Joined({{1, 255}, Text(longest.username), {255}, Text(longest.password)});
  const Buffer request = Joined({{5, 1, 0, 3, 255}, Text(domain.domain), {0x01, 0xbb}});
  const Buffer answers = Joined({kChoosesPassword, kAccepts, SucceededDomain(domain.domain)});
  for (const size_t sent_bytes : {size_t{1}, size_t{300}, kAll}) {
    const Outcome in_turn = Perform({&longest, Mode::kInTurn, domain}, answers, kAll, sent_bytes);
    EXPECT_EQ(in_turn.state, State::kDone);
    EXPECT_EQ(in_turn.sent, Joined({kOffersBoth, authentication, request}));
    const Outcome pipelined =
        Perform({&longest, Mode::kPipelined, domain}, answers, kAll, sent_bytes);
    EXPECT_EQ(pipelined.state, State::kDone);
    EXPECT_EQ(pipelined.sent, Joined({kOffersPassword, authentication, request}));
    EXPECT_EQ(pipelined.bound, (Socks5Target{{}, domain.domain, 0x1234}));
  }
}

TEST(Socks5Handshake, PipelinedAllGoesOutInOneGo) {
  Socks5Handshake handshake(&kCredentials, Mode::kPipelined);
  handshake.Request(Socks5Command::kConnect, kV4);
  EXPECT_EQ(Send(handshake), Joined({kOffersPassword, kAuthentication, kConnectV4}));
  EXPECT_TRUE(handshake.output().empty());
}

TEST(Socks5Handshake, InTurnNothingGoesOutBeforeItsAnswer) {
  Socks5Handshake handshake(&kCredentials, Mode::kInTurn);
  EXPECT_EQ(handshake.state(), State::kGreeting);
  EXPECT_EQ(Send(handshake), kOffersBoth);
  Buffer answers = Joined({kChoosesPassword, kAccepts, kSucceeded});
  Receive(handshake, answers, 1);
  EXPECT_TRUE(handshake.output().empty());
  Receive(handshake, answers);
  EXPECT_EQ(handshake.state(), State::kAuthenticating);
  EXPECT_EQ(Send(handshake), kAuthentication);
  Receive(handshake, answers);
  EXPECT_EQ(handshake.state(), State::kGreeted);
  EXPECT_TRUE(handshake.output().empty());
  handshake.Request(Socks5Command::kConnect, kV4);
  EXPECT_EQ(handshake.state(), State::kRequesting);
  EXPECT_EQ(Send(handshake), kConnectV4);
}

TEST(Socks5Handshake, PipelinedARequestMayStillBeMadeAtAnyTime) {
  // After how many bytes of the answers to greeting and authentication.
  for (size_t read_bytes = 0; read_bytes <= 4; ++read_bytes) {
    SCOPED_TRACE(read_bytes);
    Socks5Handshake handshake(&kCredentials, Mode::kPipelined);
    EXPECT_EQ(Send(handshake), Joined({kOffersPassword, kAuthentication}));
    Buffer answers = Joined({kChoosesPassword, kAccepts, kSucceeded});
    for (size_t i = 0; i < read_bytes; ++i) Receive(handshake, answers, 1);
    EXPECT_EQ(handshake.state() == State::kGreeted, read_bytes == 4);
    handshake.Request(Socks5Command::kConnect, kV4);
    EXPECT_EQ(Send(handshake), kConnectV4);
    while (handshake.wanted_bytes() != 0) Receive(handshake, answers);
    EXPECT_EQ(handshake.state(), State::kDone);
    EXPECT_EQ(handshake.bound(), kBound);
  }
}

TEST(Socks5Handshake, HowOutputIsCutMakesNoDifference) {
  for (const Way& way : Ways()) {
    const Outcome whole = Perform(way.of, way.answers);
    for (size_t bytes = 0; bytes <= way.sent.size(); ++bytes) {
      EXPECT_EQ(Perform(way.of, way.answers, kAll, bytes), whole) << way.name << " " << bytes;
    }
  }
}

TEST(Socks5Handshake, OutputGoesOutByteByByte) {
  for (const Way& way : Ways()) {
    Socks5Handshake handshake(way.of.credentials, way.of.mode);
    if (way.of.mode == Mode::kPipelined) handshake.Request(way.of.command, way.of.target);
    Buffer answers = way.answers;
    Buffer sent;
    while (handshake.state() != State::kDone) {
      ASSERT_NE(handshake.state(), State::kFailed) << way.name;
      if (handshake.state() == State::kGreeted) handshake.Request(way.of.command, way.of.target);
      while (!handshake.output().empty()) sent = Joined({sent, Send(handshake, 1)});
      Receive(handshake, answers, 1);
    }
    EXPECT_EQ(sent, way.sent) << way.name;
  }
}

TEST(Socks5Handshake, HowAnswersAreCutMakesNoDifference) {
  for (const Way& way : Ways()) {
    const Outcome whole = Perform(way.of, way.answers);
    for (size_t bytes = 1; bytes <= 10; ++bytes) {
      EXPECT_EQ(Perform(way.of, way.answers, bytes), whole) << way.name << " " << bytes;
    }
  }
}

TEST(Socks5Handshake, NothingIsReadOfWhatComesBehindTheReply) {
  const Buffer banner = Text("220 mail.example.org ESMTP\r\n");
  for (const Buffer& reply : {kSucceeded, kSucceededV6, SucceededDomain(""), SucceededDomain("x"),
                              SucceededDomain(std::string(255, 'x'))}) {
    for (const Way& way : Ways()) {
      Buffer answers(way.answers.begin(),
                     way.answers.end() - static_cast<ptrdiff_t>(kSucceeded.size()));
      answers = Joined({answers, reply, banner});
      for (const size_t read_bytes : {size_t{1}, size_t{2}, size_t{7}, kAll}) {
        const Outcome outcome = Perform(way.of, answers, read_bytes);
        EXPECT_EQ(outcome.state, State::kDone) << way.name;
        EXPECT_EQ(outcome.left, banner) << way.name << " " << reply.size() << " " << read_bytes;
      }
    }
  }
}

TEST(Socks5Handshake, AReplyIsReadInTwoGoesUnlessItHasADomain) {
  for (const Buffer& reply : {kSucceeded, kSucceededV6}) {
    Socks5Handshake handshake(nullptr, Mode::kPipelined);
    handshake.Request(Socks5Command::kConnect, kV4);
    Send(handshake);
    Buffer answers = Joined({kChoosesNone, reply});
    for (int i = 0; i < 3; ++i) Receive(handshake, answers);
    EXPECT_EQ(handshake.state(), State::kDone);
  }
}

TEST(Socks5Handshake, EveryTypeOfBoundAddressIsRead) {
  const auto bound = [](const Buffer& reply) {
    const Outcome outcome = Perform({}, Joined({kChoosesNone, reply}));
    EXPECT_EQ(outcome.state, State::kDone);
    return outcome.bound;
  };
  EXPECT_EQ(bound(kSucceeded), kBound);
  EXPECT_EQ(bound(kSucceededV6), (Socks5Target{*IpAddress::Parse("2001:db8::1"), "", 0x1234}));
  EXPECT_EQ(bound(SucceededDomain("relay.example")), (Socks5Target{{}, "relay.example", 0x1234}));
  EXPECT_EQ(bound(SucceededDomain("")), (Socks5Target{{}, "", 0x1234}));
}

TEST(Socks5Handshake, RefusesEveryOtherTypeOfBoundAddressAsSoonAsItIsThere) {
  for (int type = 0; type < 256; ++type) {
    if (type == 1 || type == 3 || type == 4) continue;
    const Outcome outcome =
        Perform({}, Joined({kChoosesNone, {5, 0, 0, static_cast<uint8_t>(type)}}));
    ExpectFailure(outcome, Socks5Failure::kMalformed);
  }
}

TEST(Socks5Handshake, DoesNotLookAtWhatIsReserved) {
  Buffer reply = kSucceeded;
  reply[2] = 0xff;
  EXPECT_EQ(Perform({}, Joined({kChoosesNone, reply})).bound, kBound);
}

TEST(Socks5Handshake, EveryRefusalIsKnownByItsSecondByte) {
  for (const Way& way : Ways()) {
    const Buffer greeted(way.answers.begin(),
                         way.answers.end() - static_cast<ptrdiff_t>(kSucceeded.size()));
    for (int reply = 1; reply < 256; ++reply) {
      const uint8_t code = static_cast<uint8_t>(reply);
      for (const Buffer& refusal :
           {Buffer{5, code}, Buffer{5, code, 0, 1, 0, 0, 0, 0, 0, 0}, Buffer{5, code, 0, 99, 0}}) {
        for (const size_t read_bytes : {size_t{1}, kAll}) {
          const Outcome outcome = Perform(way.of, Joined({greeted, refusal}), read_bytes);
          ExpectFailure(outcome, Socks5Failure::kReply);
          EXPECT_EQ(outcome.reply, reply);
          // The server has understood all that was sent.
          EXPECT_FALSE(outcome.pipelining_may_be_why);
        }
      }
    }
  }
}

TEST(Socks5Handshake, AVersionThatIsWrongIsKnownByItsFirstByte) {
  for (const Way& way : Ways()) {
    SCOPED_TRACE(way.name);
    const bool authenticates = way.answers[1] == 2;
    const size_t reply_at = way.answers.size() - kSucceeded.size();
    for (int version = 0; version < 256; ++version) {
      if (version == 5) continue;
      for (const size_t at : {size_t{0}, reply_at}) {
        Buffer answers(way.answers.begin(), way.answers.begin() + static_cast<ptrdiff_t>(at));
        answers.push_back(static_cast<uint8_t>(version));
        ExpectFailure(Perform(way.of, answers), Socks5Failure::kNotSocks5);
      }
      if (!authenticates || version == 1) continue;
      ExpectFailure(Perform(way.of, Joined({kChoosesPassword, {static_cast<uint8_t>(version)}})),
                    Socks5Failure::kNotSocks5);
    }
  }
}

TEST(Socks5Handshake, TheAnswerToCredentialsMayHaveEitherVersion) {
  for (const uint8_t version : {uint8_t{1}, uint8_t{5}}) {
    const Buffer accepts = {version, 0};
    EXPECT_EQ(Perform({&kCredentials}, Joined({kChoosesPassword, accepts, kSucceeded})).state,
              State::kDone);
  }
}

TEST(Socks5Handshake, OnlyMethodsThatWereOfferedAreTaken) {
  for (const Case& of : {Case{}, Case{&kCredentials}, Case{nullptr, Mode::kPipelined},
                         Case{&kCredentials, Mode::kPipelined}}) {
    for (int method = 0; method < 256; ++method) {
      const bool offers_none = of.credentials == nullptr || of.mode == Mode::kInTurn;
      const bool offered =
          (method == 0 && offers_none) || (method == 2 && of.credentials != nullptr);
      const Outcome outcome = Perform(of, {5, static_cast<uint8_t>(method)});
      ExpectFailure(outcome, offered ? Socks5Failure::kClosed : Socks5Failure::kNoMethod);
    }
  }
}

TEST(Socks5Handshake, CredentialsAreRefusedByAnyStatusButZero) {
  for (const Mode mode : {Mode::kInTurn, Mode::kPipelined}) {
    for (int status = 1; status < 256; ++status) {
      const Outcome outcome = Perform(
          {&kCredentials, mode}, Joined({kChoosesPassword, {1, static_cast<uint8_t>(status)}}));
      ExpectFailure(outcome, Socks5Failure::kRefusedCredentials);
    }
  }
}

TEST(Socks5Handshake, ACloseIsNoticedAtEveryByte) {
  for (const Way& way : Ways()) {
    for (size_t bytes = 0; bytes < way.answers.size(); ++bytes) {
      const Buffer answers(way.answers.begin(),
                           way.answers.begin() + static_cast<ptrdiff_t>(bytes));
      for (const size_t read_bytes : {size_t{1}, kAll}) {
        SCOPED_TRACE(std::string(way.name) + " " + std::to_string(bytes));
        const Outcome outcome = Perform(way.of, answers, read_bytes);
        ExpectFailure(outcome, Socks5Failure::kClosed);
        // Until the code of the reply is there it may be for what came too early.
        const size_t understood_bytes = way.answers.size() - kSucceeded.size() + 2;
        EXPECT_EQ(outcome.pipelining_may_be_why,
                  way.of.mode == Mode::kPipelined && bytes < understood_bytes);
      }
    }
  }
}

TEST(Socks5Handshake, AServerMayCloseWhileOneThatIsGreetedIsKept) {
  for (const Mode mode : {Mode::kInTurn, Mode::kPipelined}) {
    Socks5Handshake handshake(nullptr, mode);
    Send(handshake);
    Buffer answers = kChoosesNone;
    Receive(handshake, answers);
    ASSERT_EQ(handshake.state(), State::kGreeted);
    handshake.OnClosed();
    EXPECT_EQ(handshake.state(), State::kFailed);
    EXPECT_EQ(handshake.failure(), Socks5Failure::kClosed);
    EXPECT_FALSE(handshake.pipelining_may_be_why());
  }
}

TEST(Socks5Handshake, AfterTheEndACloseSaysNothing) {
  Socks5Handshake done(nullptr, Mode::kPipelined);
  done.Request(Socks5Command::kConnect, kV4);
  Send(done);
  Buffer answers = Joined({kChoosesNone, kSucceeded});
  while (done.wanted_bytes() != 0) Receive(done, answers);
  done.OnClosed();
  EXPECT_EQ(done.state(), State::kDone);

  Socks5Handshake failed(nullptr, Mode::kInTurn);
  Send(failed);
  answers = {5, 0xff};
  Receive(failed, answers);
  failed.OnClosed();
  EXPECT_EQ(failed.failure(), Socks5Failure::kNoMethod);
}

TEST(Socks5Handshake, WhatHasFailedSendsNoMore) {
  Socks5Handshake handshake(&kCredentials, Mode::kPipelined);
  handshake.Request(Socks5Command::kConnect, kV4);
  Send(handshake, 5);
  Buffer answers = {5, 0xff};
  Receive(handshake, answers);
  EXPECT_EQ(handshake.state(), State::kFailed);
  EXPECT_TRUE(handshake.output().empty());
  EXPECT_EQ(handshake.wanted_bytes(), 0u);
}

TEST(Socks5Handshake, FallsBackWhereAServerTakesNothingAheadOfItsTurn) {
  // One that closes, takes no credentials, chooses what it likes, or takes what follows the
  // greeting for something else.
  const std::vector<Buffer> answers = {{},           {5, 0xff},   {5, 0},       {5, 2},
                                       {5, 2, 1, 1}, {5, 2, 'x'}, {5, 2, 1, 0}, {5, 2, 1, 0, 1}};
  for (const Buffer& answer : answers) {
    EXPECT_TRUE(Perform({&kCredentials, Mode::kPipelined}, answer).pipelining_may_be_why);
    EXPECT_FALSE(Perform({&kCredentials, Mode::kInTurn}, answer).pipelining_may_be_why);
  }
  const Outcome again = Perform({&kCredentials, Mode::kInTurn}, Joined({kChoosesNone, kSucceeded}));
  EXPECT_EQ(again.state, State::kDone);
}

TEST(Socks5Handshake, PipeliningMayBeWhyThereIsNoAnswer) {
  Socks5Handshake ahead(nullptr, Mode::kPipelined);
  Send(ahead);
  // A greeting alone is never ahead of its turn.
  EXPECT_FALSE(ahead.pipelining_may_be_why());
  ahead.Request(Socks5Command::kConnect, kV4);
  Send(ahead);
  Buffer answers = Joined({kChoosesNone, {5, 0}});
  EXPECT_TRUE(ahead.pipelining_may_be_why());
  Receive(ahead, answers);
  EXPECT_TRUE(ahead.pipelining_may_be_why());
  Receive(ahead, answers);
  EXPECT_FALSE(ahead.pipelining_may_be_why());

  // Nor is a request that waits for the end of the greeting.
  Socks5Handshake kept(&kCredentials, Mode::kPipelined);
  Send(kept);
  EXPECT_TRUE(kept.pipelining_may_be_why());
  answers = Joined({kChoosesPassword, kAccepts});
  while (kept.wanted_bytes() != 0) Receive(kept, answers);
  EXPECT_FALSE(kept.pipelining_may_be_why());
  kept.Request(Socks5Command::kConnect, kV4);
  Send(kept);
  EXPECT_FALSE(kept.pipelining_may_be_why());
}

TEST(Socks5Handshake, AnAnswerToWhatWasNotSentIsNone) {
  for (const Way& way : Ways()) {
    for (size_t bytes = 0; bytes < way.sent.size(); ++bytes) {
      SCOPED_TRACE(std::string(way.name) + " " + std::to_string(bytes));
      Socks5Handshake handshake(way.of.credentials, way.of.mode);
      if (way.of.mode == Mode::kPipelined) handshake.Request(way.of.command, way.of.target);
      Buffer answers = way.answers;
      size_t left_bytes = bytes;
      do {
        if (handshake.state() == State::kGreeted) handshake.Request(way.of.command, way.of.target);
        left_bytes -= Send(handshake, left_bytes).size();
        Receive(handshake, answers);
      } while (handshake.wanted_bytes() != 0 || handshake.state() == State::kGreeted);
      EXPECT_EQ(handshake.state(), State::kFailed);
      EXPECT_EQ(handshake.failure(), Socks5Failure::kMalformed);
    }
  }
}

TEST(Socks5Handshake, DescribesFailures) {
  EXPECT_EQ(Describe(Socks5Failure::kReply, 1), "general failure of the server (1)");
  EXPECT_EQ(Describe(Socks5Failure::kReply, 2), "not allowed by the server's rules (2)");
  EXPECT_EQ(Describe(Socks5Failure::kReply, 3), "network unreachable (3)");
  EXPECT_EQ(Describe(Socks5Failure::kReply, 4), "host unreachable (4)");
  EXPECT_EQ(Describe(Socks5Failure::kReply, 5), "connection refused (5)");
  EXPECT_EQ(Describe(Socks5Failure::kReply, 6), "time to live expired (6)");
  EXPECT_EQ(Describe(Socks5Failure::kReply, 7), "command not supported (7)");
  EXPECT_EQ(Describe(Socks5Failure::kReply, 8), "type of address not supported (8)");
  EXPECT_EQ(Describe(Socks5Failure::kReply, 9), "unknown reply (9)");
  EXPECT_EQ(Describe(Socks5Failure::kReply, 255), "unknown reply (255)");
  EXPECT_THAT(Describe(Socks5Failure::kNotSocks5, 0), HasSubstr("SOCKS5"));
  EXPECT_THAT(Describe(Socks5Failure::kNoMethod, 0), HasSubstr("method"));
  EXPECT_THAT(Describe(Socks5Failure::kRefusedCredentials, 0), HasSubstr("password"));
  EXPECT_THAT(Describe(Socks5Failure::kMalformed, 0), HasSubstr("malformed"));
  EXPECT_THAT(Describe(Socks5Failure::kClosed, 0), HasSubstr("closed"));
}

}  // namespace
}  // namespace braid::socks5_handshake_test
