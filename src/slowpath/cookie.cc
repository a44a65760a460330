// The keyed MACs, then the receiving and the sending side.
#include "slowpath/cookie.h"

#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/params.h>
#include <sodium.h>

#include <algorithm>
#include <cassert>
#include <cstdio>
#include <cstdlib>
#include <string_view>

#include "base/c_pointer.h"
#include "slowpath/require.h"

namespace braid {
namespace {

constexpr std::string_view kMac1Label = "mac1----";
constexpr std::string_view kCookieLabel = "cookie--";

static_assert(kCookieBytes == sizeof(Mac));
static_assert(kCookieNonceBytes == crypto_aead_xchacha20poly1305_ietf_NPUBBYTES);
static_assert(kTagBytes == crypto_aead_xchacha20poly1305_ietf_ABYTES);
static_assert(kKeyBytes == crypto_aead_xchacha20poly1305_ietf_KEYBYTES);

// One context per thread and one fetch per process: a fetch costs more than a MAC.
EVP_MAC_CTX* MacContext() {
  using Context = CPointer<EVP_MAC_CTX, EVP_MAC_CTX_free>;
  static EVP_MAC* const algorithm = EVP_MAC_fetch(nullptr, OSSL_MAC_NAME_BLAKE2SMAC, nullptr);
  Require(algorithm != nullptr, "OpenSSL offers no BLAKE2SMAC");
  thread_local const Context context = [] {
    EVP_MAC_CTX* fresh = EVP_MAC_CTX_new(algorithm);
    size_t size = kMacBytes;
    const OSSL_PARAM parameters[] = {OSSL_PARAM_construct_size_t(OSSL_MAC_PARAM_SIZE, &size),
                                     OSSL_PARAM_construct_end()};
    Require(fresh != nullptr && EVP_MAC_CTX_set_params(fresh, parameters) == 1,
            "no context for BLAKE2SMAC");
    return Context(fresh);
  }();
  return context.get();
}

Mac KeyedMac(Bytes key, Bytes data) {
  EVP_MAC_CTX* context = MacContext();
  Mac mac;
  size_t size = 0;
  Require(EVP_MAC_init(context, key.data(), key.size(), nullptr) == 1 &&
              EVP_MAC_update(context, data.data(), data.size()) == 1 &&
              EVP_MAC_final(context, mac.data(), &size, mac.size()) == 1 && size == mac.size(),
          "BLAKE2SMAC does not work");
  return mac;
}

Key LabelledKey(std::string_view label, const Key& public_key) {
  return Blake2s({Bytes(reinterpret_cast<const uint8_t*>(label.data()), label.size()), public_key});
}

bool HoldsMacs(Bytes message) { return message.size() >= kHeaderBytes + kMacsBytes; }
size_t Mac1Offset(Bytes message) { return message.size() - kMacsBytes; }
size_t Mac2Offset(Bytes message) { return message.size() - kMacBytes; }

bool IsMac(const Mac& expected, const uint8_t* found) {
  return sodium_memcmp(expected.data(), found, expected.size()) == 0;
}

Mac CookieFor(const Secret& secret, const Endpoint& source) {
  std::array<uint8_t, 18> from{};
  const size_t size = static_cast<size_t>(source.address.bits()) / 8;
  std::copy_n(source.address.bytes.begin(), size, from.begin());
  StoreBe16(from.data() + size, source.port);
  return KeyedMac(secret, Bytes(from).first(size + 2));
}

}  // namespace

Header HandshakeHeader(Kind kind, uint32_t session, uint8_t path_id) {
  return {.kind = kind,
          .session = session,
          .lane = kSlowLane,
          .path = path_id,
          .epoch = 0,
          .flags = 0,
          .path_seq = 0,
          .sequence = 0};
}

std::optional<Header> ReadHandshakeHeader(Bytes datagram, Kind kind) {
  Header header;
  if (ReadHeader(datagram, header) != HeaderVerdict::kOk || header.kind != kind) return {};
  if (header.lane != kSlowLane || (header.path & ~kPathIdMask) != 0) return {};
  if (header.epoch != 0 || header.flags != 0) return {};
  if (header.path_seq != 0 || header.sequence != 0) return {};
  return header;
}

// The receiving side.

CookieChecker::CookieChecker(const Key& own_public_key)
    : mac1_key_(LabelledKey(kMac1Label, own_public_key)),
      cookie_key_(LabelledKey(kCookieLabel, own_public_key)) {}

Admission CookieChecker::Admit(Bytes message, const Endpoint& source, bool under_load, TimeNs now) {
  if (!CheckMac1(message)) return Admission::kRefused;
  switch (CheckMac2(message, source, now)) {
    case Mac2Verdict::kValid:
      return Admission::kAdmitted;
    case Mac2Verdict::kAbsent:
      return under_load ? Admission::kNeedsCookie : Admission::kAdmitted;
    case Mac2Verdict::kInvalid:
      break;
  }
  return Admission::kRefused;
}

bool CookieChecker::CheckMac1(Bytes message) const {
  if (!HoldsMacs(message)) return false;
  const size_t offset = Mac1Offset(message);
  return IsMac(KeyedMac(mac1_key_, message.first(offset)), message.data() + offset);
}

Mac2Verdict CookieChecker::CheckMac2(Bytes message, const Endpoint& source, TimeNs now) {
  if (!HoldsMacs(message)) return Mac2Verdict::kInvalid;
  const size_t offset = Mac2Offset(message);
  const uint8_t* mac2 = message.data() + offset;
  if (sodium_is_zero(mac2, kMacBytes) != 0) return Mac2Verdict::kAbsent;
  Rotate(now);
  for (const Secret* secret : {&secret_, &previous_secret_}) {
    const Mac cookie = CookieFor(*secret, source);
    if (IsMac(KeyedMac(cookie, message.first(offset)), mac2)) return Mac2Verdict::kValid;
  }
  return Mac2Verdict::kInvalid;
}

absl::StatusOr<size_t> CookieChecker::WriteCookie(Bytes message, const Endpoint& source, TimeNs now,
                                                  MutableBytes out) {
  if (!CheckMac1(message)) return absl::UnauthenticatedError("no cookie without a valid mac1");
  std::optional<Header> asked = ReadHandshakeHeader(message, Kind::kInitiation);
  if (!asked) asked = ReadHandshakeHeader(message, Kind::kResponse);
  if (!asked || message.size() <= kCookieReplyBytes) {
    return absl::InvalidArgumentError("no cookie for what is no handshake message");
  }
  if (out.size() < kCookieReplyBytes) return absl::InvalidArgumentError("no room for a cookie");
  Rotate(now);
  WriteHeader(out.data(), HandshakeHeader(Kind::kCookie, 0, asked->path));
  uint8_t* nonce = out.data() + kHeaderBytes;
  randombytes_buf(nonce, kCookieNonceBytes);
  const Mac cookie = CookieFor(secret_, source);
  crypto_aead_xchacha20poly1305_ietf_encrypt(nonce + kCookieNonceBytes, nullptr, cookie.data(),
                                             cookie.size(), message.data() + Mac1Offset(message),
                                             kMacBytes, nullptr, nonce, cookie_key_.data());
  return kCookieReplyBytes;
}

// After a pause of two lifetimes neither secret is young enough to be kept.
void CookieChecker::Rotate(TimeNs now) {
  const auto draw = [](Secret& secret) { randombytes_buf(secret.data(), secret.size()); };
  if (rotated_ && now < *rotated_ + kCookieLifetimeNs) return;
  if (rotated_ && now < *rotated_ + 2 * kCookieLifetimeNs) {
    previous_secret_ = secret_;
    *rotated_ += kCookieLifetimeNs;
  } else {
    draw(previous_secret_);
    rotated_ = now;
  }
  draw(secret_);
}

// The sending side.

MacStamper::MacStamper(const Key& receiver_public_key)
    : mac1_key_(LabelledKey(kMac1Label, receiver_public_key)),
      cookie_key_(LabelledKey(kCookieLabel, receiver_public_key)) {}

void MacStamper::AddMacs(MutableBytes message, uint32_t sender_index, TimeNs now) {
  assert(HoldsMacs(message));
  const size_t mac1_offset = Mac1Offset(message);
  const size_t mac2_offset = Mac2Offset(message);
  const Mac mac1 = KeyedMac(mac1_key_, message.first(mac1_offset));
  std::copy(mac1.begin(), mac1.end(), message.begin() + mac1_offset);
  Mac mac2{};
  if (HasCookie(now)) {
    mac2 = KeyedMac(Bytes(cookie_->value).first(kCookieBytes), message.first(mac2_offset));
  } else {
    DropCookie();
  }
  std::copy(mac2.begin(), mac2.end(), message.begin() + mac2_offset);
  sent_ = Sent{mac1, sender_index, static_cast<uint8_t>(message[9] & kPathIdMask)};
}

absl::Status MacStamper::ConsumeCookie(Bytes datagram, TimeNs now) {
  const std::optional<Header> header = ReadHandshakeHeader(datagram, Kind::kCookie);
  if (!header || datagram.size() != kCookieReplyBytes) {
    return absl::InvalidArgumentError("the datagram is no cookie");
  }
  if (!sent_ || header->path != sent_->path_id ||
      (header->session != 0 && header->session != sent_->sender_index)) {
    return absl::FailedPreconditionError("the cookie answers no message of this side");
  }
  const uint8_t* nonce = datagram.data() + kHeaderBytes;
  Cookie cookie{Secret(), now};
  if (crypto_aead_xchacha20poly1305_ietf_decrypt(
          cookie.value.data(), nullptr, nullptr, nonce + kCookieNonceBytes,
          kCookieBytes + kTagBytes, sent_->mac1.data(), sent_->mac1.size(), nonce,
          cookie_key_.data()) != 0) {
    return absl::UnauthenticatedError("the cookie does not authenticate");
  }
  cookie_ = cookie;
  sent_.reset();
  return absl::OkStatus();
}

void MacStamper::DropCookie() { cookie_.reset(); }

bool MacStamper::HasCookie(TimeNs now) const {
  return cookie_.has_value() && now < cookie_->received + kCookieLifetimeNs;
}

}  // namespace braid
