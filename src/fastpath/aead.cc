#include "fastpath/aead.h"

#include <sodium.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <string>

#include "absl/status/status.h"

namespace braid {
namespace {

template <size_t N>
std::array<uint8_t, N> FromHex(const char* hex) {
  std::array<uint8_t, N> bytes{};
  size_t length = 0;
  sodium_hex2bin(bytes.data(), N, hex, N * 2, nullptr, &length, nullptr);
  return bytes;
}

// RFC 8439 §2.8.2, and test case 16 of the GCM specification: each with associated data and a
// plaintext that is no whole number of blocks.
struct KnownAnswer {
  Cipher cipher;
  const char* key;
  const char* nonce;
  const char* associated;
  const char* plain;
  const char* sealed;
};

constexpr KnownAnswer kKnownAnswers[] = {
    {Cipher::kChaCha20Poly1305, "808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f",
     "070000004041424344454647", "50515253c0c1c2c3c4c5c6c7",
     "4c616469657320616e642047656e746c656d656e206f662074686520636c617373206f66202739393a20496620"
     "4920636f756c64206f6666657220796f75206f6e6c79206f6e652074697020666f7220746865206675747572652c"
     "2073756e73637265656e20776f756c642062652069742e",
     "d31a8d34648e60db7b86afbc53ef7ec2a4aded51296e08fea9e2b5a736ee62d63dbea45e8ca9671282fafb69da92"
     "728b1a71de0a9e060b2905d6a5b67ecd3b3692ddbd7f2d778b8c9803aee328091b58fab324e4fad675945585808b"
     "4831d7bc3ff4def08e4b7a9de576d26586cec64b61161ae10b594f09e26a7e902ecbd0600691"},
    {Cipher::kAes256Gcm, "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308",
     "cafebabefacedbaddecaf888", "feedfacedeadbeeffeedfacedeadbeefabaddad2",
     "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6"
     "b525b16aedf5aa0de657ba637b39",
     "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b1056"
     "828838c5f61e6393ba7a0abcc9f66276fc6ece0f4e1768cddf8853bb2d551b"},
};

// Seals and opens the published answer, and refuses it with one bit changed.
bool PassesSelfTest(const Aead& aead) {
  for (const KnownAnswer& answer : kKnownAnswers) {
    if (answer.cipher != aead.cipher) continue;
    const size_t plain_bytes = std::strlen(answer.plain) / 2;
    const auto plain = FromHex<160>(answer.plain);
    const auto expected = FromHex<176>(answer.sealed);
    const auto associated = FromHex<32>(answer.associated);
    const Bytes associated_bytes(associated.data(), std::strlen(answer.associated) / 2);
    const Nonce nonce = FromHex<12>(answer.nonce);
    AeadKey key;
    aead.expand(FromHex<32>(answer.key), key);
    std::array<uint8_t, 176> sealed{};
    const MutableBytes sealed_bytes(sealed.data(), plain_bytes + kTagBytes);
    aead.seal(key, nonce, associated_bytes, {plain.data(), plain_bytes}, sealed.data());
    if (sealed != expected) return false;
    if (!aead.open(key, nonce, associated_bytes, sealed_bytes)) return false;
    if (std::memcmp(sealed.data(), plain.data(), plain_bytes) != 0) return false;
    sealed = expected;
    sealed[plain_bytes / 2] ^= 1;
    return !aead.open(key, nonce, associated_bytes, sealed_bytes);
  }
  return false;
}

}  // namespace

std::string_view CipherName(Cipher cipher) {
  return cipher == Cipher::kAes256Gcm ? "aes-256-gcm" : "chacha20-poly1305";
}

std::vector<const Aead*> AvailableAeads(Cipher cipher) {
  PrepareAeadThread();
  std::vector<const Aead*> available;
  for (const auto& candidates : {IpsecMbAeads(), SodiumAeads()}) {
    for (const Aead* aead : candidates) {
      if (aead->cipher == cipher && PassesSelfTest(*aead)) available.push_back(aead);
    }
  }
  return available;
}

absl::StatusOr<AeadSuite> ChooseAeads(std::string_view preference) {
  AeadSuite suite;
  for (const Cipher cipher : {Cipher::kChaCha20Poly1305, Cipher::kAes256Gcm}) {
    for (const Aead* aead : AvailableAeads(cipher)) {
      if (preference != "auto" && preference != aead->backend) continue;
      suite.by_cipher[static_cast<int>(cipher)] = aead;
      break;
    }
  }
  if (suite[Cipher::kChaCha20Poly1305] == nullptr) {
    return absl::UnavailableError("performance.aead: the back-end \"" + std::string(preference) +
                                  "\" does not work here");
  }
  return suite;
}

void PrepareAeadThread() {
  if (sodium_init() < 0) std::abort();  // no randomness on this system: nothing can be safe
  PrepareIpsecMbThread();
}

Key DeriveLaneKey(const Key& root, uint8_t lane, uint32_t epoch) {
  static_assert(sizeof(Key) == crypto_kdf_KEYBYTES);
  Key key;
  const uint64_t subkey = static_cast<uint64_t>(lane) << 32 | epoch;
  crypto_kdf_derive_from_key(key.data(), key.size(), subkey, "braidkey", root.data());
  return key;
}

}  // namespace braid
