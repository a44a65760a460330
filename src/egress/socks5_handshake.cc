#include "egress/socks5_handshake.h"

#include <array>
#include <cassert>

#include "absl/strings/str_cat.h"
#include "fastpath/socks5_udp.h"

namespace braid {
namespace {

constexpr uint8_t kSocks5Version = 5;
constexpr uint8_t kSocks5AuthenticationVersion = 1;

constexpr uint8_t kSocks5NoAuthentication = 0;
constexpr uint8_t kSocks5UsernamePassword = 2;

// What a server says of methods, and of credentials.
constexpr size_t kSocks5AnswerBytes = 2;
// So much of a reply says how long it is. None is shorter.
constexpr size_t kSocks5ReplyHeadBytes = 5;
constexpr size_t kSocks5ReplyAddressAt = 4;
constexpr size_t kSocks5PortBytes = 2;

constexpr std::array<const char*, 9> kSocks5Replies = {
    "succeeded",
    "general failure of the server",
    "not allowed by the server's rules",
    "network unreachable",
    "host unreachable",
    "connection refused",
    "time to live expired",
    "command not supported",
    "type of address not supported",
};

bool IsSocks5AddressType(uint8_t type) {
  return type == kSocks5AddressV4 || type == kSocks5AddressDomain || type == kSocks5AddressV6;
}

// `head` is kSocks5ReplyHeadBytes of a reply that has an address.
size_t Socks5ReplyBytes(const uint8_t* head) {
  constexpr size_t kAround = kSocks5ReplyAddressAt + kSocks5PortBytes;
  switch (head[3]) {
    case kSocks5AddressV4:
      return kAround + 4;
    case kSocks5AddressV6:
      return kAround + 16;
    default:
      return kAround + 1 + head[kSocks5ReplyAddressAt];
  }
}

}  // namespace

Socks5Handshake::Socks5Handshake(const Socks5Credentials* credentials, Mode mode)
    : credentials_(credentials), mode_(mode) {
  AppendGreeting();
  if (mode_ == Mode::kInTurn || credentials_ == nullptr) return;
  AppendAuthentication();
  is_ahead_ = true;
}

void Socks5Handshake::Request(Socks5Command command, const Socks5Target& target) {
  const bool in_turn = state_ == State::kGreeted;
  assert(!is_requested_ && (in_turn || (mode_ == Mode::kPipelined && wanted_bytes() != 0)));
  output_.insert(output_.end(), {kSocks5Version, static_cast<uint8_t>(command), 0});
  if (target.address.is_set()) {
    output_.push_back(target.address.is_v4() ? kSocks5AddressV4 : kSocks5AddressV6);
    const auto bytes = target.address.bytes.begin();
    output_.insert(output_.end(), bytes, bytes + target.address.bytes_used());
  } else {
    output_.push_back(kSocks5AddressDomain);
    AppendText(target.domain);
  }
  uint8_t port[kSocks5PortBytes];
  StoreBe16(port, target.port);
  output_.insert(output_.end(), port, port + sizeof(port));
  is_requested_ = true;
  if (in_turn) {
    state_ = State::kRequesting;
  } else {
    is_ahead_ = true;
  }
}

Bytes Socks5Handshake::output() const {
  if (state_ == State::kFailed) return {};
  return Bytes(output_).subspan(sent_bytes_);
}

void Socks5Handshake::OnSent(size_t bytes) {
  assert(bytes <= output_.size() - sent_bytes_);
  sent_bytes_ = static_cast<uint16_t>(sent_bytes_ + bytes);
  if (sent_bytes_ < output_.size()) return;
  output_.clear();
  sent_bytes_ = 0;
}

size_t Socks5Handshake::wanted_bytes() const {
  switch (state_) {
    case State::kGreeting:
    case State::kAuthenticating:
      return kSocks5AnswerBytes - input_.size();
    case State::kRequesting:
      if (input_.size() < kSocks5ReplyHeadBytes) return kSocks5ReplyHeadBytes - input_.size();
      return Socks5ReplyBytes(input_.data()) - input_.size();
    case State::kGreeted:
    case State::kDone:
    case State::kFailed:
      return 0;
  }
  return 0;
}

void Socks5Handshake::OnInput(Bytes bytes) {
  assert(!bytes.empty() && bytes.size() <= wanted_bytes());
  input_.insert(input_.end(), bytes.begin(), bytes.end());
  if (state_ == State::kGreeting) return TakeMethod();
  if (state_ == State::kAuthenticating) return TakeAuthentication();
  TakeReply();
}

void Socks5Handshake::OnClosed() {
  if (state_ != State::kDone && state_ != State::kFailed) Fail(Socks5Failure::kClosed);
}

Socks5Target Socks5Handshake::bound() const {
  assert(state_ == State::kDone);
  const uint8_t* const address = input_.data() + kSocks5ReplyAddressAt;
  Socks5Target bound;
  bound.port = LoadBe16(input_.data() + input_.size() - kSocks5PortBytes);
  if (input_[3] == kSocks5AddressV4) {
    bound.address = IpAddress::V4(address);
  } else if (input_[3] == kSocks5AddressV6) {
    bound.address = IpAddress::V6(address);
  } else {
    bound.domain.assign(address + 1, address + 1 + address[0]);
  }
  return bound;
}

// What is sent behind a greeting depends on the method that is chosen, so that it can be sent with
// it only where there is no choice.
bool Socks5Handshake::OffersNoAuthentication() const {
  return credentials_ == nullptr || mode_ == Mode::kInTurn;
}

void Socks5Handshake::AppendGreeting() {
  output_.insert(output_.end(), {kSocks5Version, 0});
  // First, since a server may choose the first that it knows: with some, the user name says more
  // than who is let in.
  if (credentials_ != nullptr) output_.push_back(kSocks5UsernamePassword);
  if (OffersNoAuthentication()) output_.push_back(kSocks5NoAuthentication);
  output_[1] = static_cast<uint8_t>(output_.size() - 2);
}

void Socks5Handshake::AppendAuthentication() {
  output_.push_back(kSocks5AuthenticationVersion);
  AppendText(credentials_->username);
  AppendText(credentials_->password);
}

void Socks5Handshake::AppendText(const std::string& text) {
  assert(text.size() <= UINT8_MAX);
  output_.push_back(static_cast<uint8_t>(text.size()));
  output_.insert(output_.end(), text.begin(), text.end());
}

// Each judges the bytes of an answer in their order, so that it makes no difference how many come
// at once.

void Socks5Handshake::TakeMethod() {
  if (input_[0] != kSocks5Version) return Fail(Socks5Failure::kNotSocks5);
  if (input_.size() < kSocks5AnswerBytes) return;
  const uint8_t method = input_[1];
  if (method == kSocks5UsernamePassword && credentials_ != nullptr) {
    input_.clear();
    if (mode_ == Mode::kInTurn) AppendAuthentication();
    state_ = State::kAuthenticating;
  } else if (method == kSocks5NoAuthentication && OffersNoAuthentication()) {
    EndGreeting();
  } else {
    Fail(Socks5Failure::kNoMethod);
  }
}

void Socks5Handshake::TakeAuthentication() {
  // Some servers repeat the 5 of all other answers here.
  if (input_[0] != kSocks5AuthenticationVersion && input_[0] != kSocks5Version) {
    return Fail(Socks5Failure::kNotSocks5);
  }
  if (input_.size() < kSocks5AnswerBytes) return;
  if (input_[1] != 0) return Fail(Socks5Failure::kRefusedCredentials);
  EndGreeting();
}

void Socks5Handshake::TakeReply() {
  if (input_[0] != kSocks5Version) return Fail(Socks5Failure::kNotSocks5);
  if (input_.size() < 2) return;
  // Whatever it says, the server has found the request.
  is_ahead_ = false;
  reply_ = input_[1];
  // Some servers end a refusal here, and close.
  if (reply_ != 0) return Fail(Socks5Failure::kReply);
  if (input_.size() < 4) return;
  if (!IsSocks5AddressType(input_[3])) return Fail(Socks5Failure::kMalformed);
  if (wanted_bytes() == 0) Reach(State::kDone);
}

void Socks5Handshake::EndGreeting() {
  input_.clear();
  if (is_requested_) {
    state_ = State::kRequesting;
    return;
  }
  is_ahead_ = false;
  Reach(State::kGreeted);
}

// There all has been answered that there was to send. If it has not been sent, that was no answer.
void Socks5Handshake::Reach(State state) {
  if (!output().empty()) return Fail(Socks5Failure::kMalformed);
  state_ = state;
}

void Socks5Handshake::Fail(Socks5Failure failure) {
  state_ = State::kFailed;
  failure_ = failure;
}

std::string Describe(Socks5Failure failure, uint8_t reply) {
  switch (failure) {
    case Socks5Failure::kNone:
      return "no failure";
    case Socks5Failure::kNotSocks5:
      return "the server does not speak SOCKS5";
    case Socks5Failure::kNoMethod:
      return "the server wants another method of authentication";
    case Socks5Failure::kRefusedCredentials:
      return "the server refused user name and password";
    case Socks5Failure::kReply:
      return absl::StrCat(reply < kSocks5Replies.size() ? kSocks5Replies[reply] : "unknown reply",
                          " (", static_cast<int>(reply), ")");
    case Socks5Failure::kMalformed:
      return "the server's answer is malformed";
    case Socks5Failure::kClosed:
      return "the server closed the connection";
  }
  return "";
}

}  // namespace braid
