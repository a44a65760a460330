// Any bytes as what a SOCKS5 server says. The handshake ends as a reader of all of them at once
// says it does, whatever the cuts; it never reads behind the answer that ends it; and it waits for
// input exactly as long as it wants some.
#include "egress/socks5_handshake.h"
#include "support/fuzz_input.h"

namespace braid {
namespace {

using testing::Buffer;
using testing::Check;
using Mode = Socks5Handshake::Mode;
using State = Socks5Handshake::State;

struct Case {
  const Socks5Credentials* credentials;
  Mode mode;
  bool requests_at_once;  // where it is pipelined
  Socks5Command command;
  Socks5Target target;
};

struct Outcome {
  Socks5Failure failure = Socks5Failure::kNone;
  uint8_t reply = 0;
  size_t read_bytes = 0;  // of one that has not failed
  Socks5Target bound;
  Buffer sent;

  bool operator==(const Outcome&) const = default;
};

// Where the answers end well, and where they do not; by all of them at once.
class Expectation {
 public:
  Expectation(const Case& of, Bytes answers) : left_(answers), of_(of) {
    outcome_.failure = Read();
    outcome_.read_bytes = answers.size() - left_.size();
  }

  void CheckAgainst(const Outcome& outcome, size_t read_bytes) const {
    Check(outcome.failure == outcome_.failure);
    Check(outcome.reply == outcome_.reply);
    if (outcome.failure != Socks5Failure::kNone) return;
    Check(read_bytes == outcome_.read_bytes);
    Check(outcome.bound == outcome_.bound);
  }

 private:
  // -1 when there is none.
  int Byte() {
    if (left_.empty()) return -1;
    const uint8_t byte = left_.front();
    left_ = left_.subspan(1);
    return byte;
  }

  Socks5Failure Read() {
    const int version = Byte(), method = Byte();
    if (version < 0) return Socks5Failure::kClosed;
    if (version != 5) return Socks5Failure::kNotSocks5;
    if (method < 0) return Socks5Failure::kClosed;
    const bool with_password = of_.credentials != nullptr;
    if (method == 2 && with_password) {
      const int authentication_version = Byte(), status = Byte();
      if (authentication_version < 0) return Socks5Failure::kClosed;
      if (authentication_version != 1 && authentication_version != 5) {
        return Socks5Failure::kNotSocks5;
      }
      if (status < 0) return Socks5Failure::kClosed;
      if (status != 0) return Socks5Failure::kRefusedCredentials;
    } else if (method != 0 || (with_password && of_.mode == Mode::kPipelined)) {
      return Socks5Failure::kNoMethod;
    }
    return ReadReply();
  }

  Socks5Failure ReadReply() {
    const int version = Byte(), reply = Byte(), reserved = Byte(), type = Byte();
    if (version < 0) return Socks5Failure::kClosed;
    if (version != 5) return Socks5Failure::kNotSocks5;
    if (reply < 0) return Socks5Failure::kClosed;
    outcome_.reply = static_cast<uint8_t>(reply);
    if (reply != 0) return Socks5Failure::kReply;
    if (reserved < 0 || type < 0) return Socks5Failure::kClosed;
    if (type != 1 && type != 3 && type != 4) return Socks5Failure::kMalformed;
    const int address_bytes = type == 1 ? 4 : type == 4 ? 16 : Byte();
    if (address_bytes < 0 || left_.size() < static_cast<size_t>(address_bytes) + 2) {
      return Socks5Failure::kClosed;
    }
    const Bytes address = left_.first(static_cast<size_t>(address_bytes));
    if (type == 1) outcome_.bound.address = IpAddress::V4(address.data());
    if (type == 4) outcome_.bound.address = IpAddress::V6(address.data());
    if (type == 3) outcome_.bound.domain.assign(address.begin(), address.end());
    left_ = left_.subspan(address.size());
    outcome_.bound.port = LoadBe16(left_.data());
    left_ = left_.subspan(2);
    return Socks5Failure::kNone;
  }

  Bytes left_;
  const Case& of_;
  Outcome outcome_;
};

// How many bytes of `most` go at once.
struct Pace {
  size_t step = SIZE_MAX;  // 0: by chance
  uint64_t seed = 0;

  size_t Next(size_t most) {
    if (step != 0) return std::min(step, most);
    seed = seed * 6364136223846793005 + 1442695040888963407;
    return 1 + (seed >> 33) % most;
  }
};

void SendSome(Socks5Handshake& handshake, Pace& pace, Buffer& sent) {
  const Bytes output = handshake.output();
  const Bytes taken = output.first(pace.Next(output.size()));
  sent.insert(sent.end(), taken.begin(), taken.end());
  handshake.OnSent(taken.size());
}

// What is sent is sent whole before anything is read, or else in one piece for each that is read.
Outcome Run(const Case& of, Bytes answers, Pace pace, bool sends_whole) {
  Outcome outcome;
  Socks5Handshake handshake(of.credentials, of.mode);
  bool requested = of.mode == Mode::kPipelined && of.requests_at_once;
  if (requested) handshake.Request(of.command, of.target);
  size_t rounds = 0;
  while (handshake.state() != State::kDone && handshake.state() != State::kFailed) {
    // Each reads a byte, or makes the request, or closes.
    Check(++rounds <= answers.size() + 2);
    if (!handshake.output().empty()) SendSome(handshake, pace, outcome.sent);
    while (sends_whole && !handshake.output().empty()) SendSome(handshake, pace, outcome.sent);
    const size_t wanted_bytes = handshake.wanted_bytes();
    Check((wanted_bytes == 0) == (handshake.state() == State::kGreeted));
    if (wanted_bytes == 0) {
      Check(!requested);
      requested = true;
      handshake.Request(of.command, of.target);
    } else if (outcome.read_bytes == answers.size()) {
      handshake.OnClosed();
    } else {
      const Bytes left = answers.subspan(outcome.read_bytes);
      const size_t bytes = pace.Next(std::min(wanted_bytes, left.size()));
      handshake.OnInput(left.first(bytes));
      outcome.read_bytes += bytes;
    }
  }
  Check(handshake.wanted_bytes() == 0 && handshake.output().empty());
  outcome.failure = handshake.failure();
  outcome.reply = handshake.reply();
  if (handshake.state() == State::kDone) {
    outcome.bound = handshake.bound();
    Check(!handshake.pipelining_may_be_why());
  } else {
    Check(outcome.failure != Socks5Failure::kNone);
  }
  Check(of.mode == Mode::kPipelined || !handshake.pipelining_may_be_why());
  return outcome;
}

void CheckRuns(const Case& of, Bytes answers, uint64_t seed) {
  const Expectation expectation(of, answers);
  const Outcome by_one = Run(of, answers, {.step = 1}, true);
  for (const Pace& pace : {Pace{.step = 1}, Pace{}, Pace{.step = 0, .seed = seed}}) {
    Outcome outcome = Run(of, answers, pace, true);
    expectation.CheckAgainst(outcome, outcome.read_bytes);
    // How much of a refusal has been read depends on the cut.
    if (outcome.failure != Socks5Failure::kNone) outcome.read_bytes = by_one.read_bytes;
    Check(outcome == by_one);
  }
  const Outcome sent_late = Run(of, answers, {.step = 0, .seed = seed}, false);
  if (sent_late.failure != Socks5Failure::kMalformed) {
    expectation.CheckAgainst(sent_late, sent_late.read_bytes);
  }
}

}  // namespace
}  // namespace braid

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace braid;
  testing::FuzzInput input({data, size});
  const uint8_t choices = input.Byte();
  const Socks5Credentials credentials = {std::string(1 + input.Byte() % 255u, 'u'),
                                         std::string(1 + input.Byte() % 255u, 'p')};
  Case of{(choices & 1) != 0 ? &credentials : nullptr,
          (choices & 2) != 0 ? Mode::kPipelined : Mode::kInTurn,
          (choices & 4) != 0,
          (choices & 8) != 0 ? Socks5Command::kUdpAssociate : Socks5Command::kConnect,
          {}};
  of.target.port = input.Word();
  if ((choices & 16) != 0) {
    of.target.domain.assign(1 + input.Byte() % 255u, 'd');
  } else {
    of.target.address =
        IpAddress::Any((choices & 32) != 0 ? IpAddress::Family::kV4 : IpAddress::Family::kV6);
  }
  const uint64_t seed = input.Word();
  const testing::Buffer answers = input.Take(size);
  CheckRuns(of, answers, seed);
  return 0;
}
