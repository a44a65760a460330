// One interface to the AEADs: ChaCha20-Poly1305 (RFC 8439) and AES-256-GCM (SP 800-38D), 256-bit
// key, 96-bit nonce, 128-bit tag behind the ciphertext.
//
// Two back-ends give the same bytes: libsodium, everywhere, and intel-ipsec-mb on x86-64. Which one
// a cipher uses is decided once at start, after a self-test. Everything here may be called from any
// thread; nothing allocates after PrepareThread().
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "base/bytes.h"
#include "base/limits.h"
#include "fastpath/wire.h"

namespace braid {

enum class Cipher : uint8_t { kChaCha20Poly1305 = 0, kAes256Gcm = 1 };
inline constexpr int kCiphers = 2;

std::string_view CipherName(Cipher cipher);  // as in the configuration: "aes-256-gcm"

// A key made ready by Aead::expand; only the back-end that made it can read it. intel-ipsec-mb
// demands the alignment.
struct alignas(64) AeadKey {
  std::array<uint8_t, 1024> bytes;
};

struct Aead {
  Cipher cipher;
  std::string_view backend;

  void (*expand)(const Key& key, AeadKey& expanded);

  // Writes plain.size() + kTagBytes at `out`, which is apart from `plain` or begins where it does.
  void (*seal)(const AeadKey& key, const Nonce& nonce, Bytes associated, Bytes plain, uint8_t* out);

  // Opens in place; the last kTagBytes are the tag. False when it does not authenticate; the bytes
  // are then of no use.
  bool (*open)(const AeadKey& key, const Nonce& nonce, Bytes associated, MutableBytes sealed);
};

// The back-ends that this machine can run, each having passed its self-test, the fastest first.
std::vector<const Aead*> AvailableAeads(Cipher cipher);

// The AEAD for each cipher, nullptr where a cipher is not to be had in hardware.
struct AeadSuite {
  std::array<const Aead*, kCiphers> by_cipher{};
  const Aead* operator[](Cipher cipher) const { return by_cipher[static_cast<int>(cipher)]; }
};

// `preference` is "auto", "ipsec-mb" or "sodium".
absl::StatusOr<AeadSuite> ChooseAeads(std::string_view preference);

// Takes what the back-ends keep per thread. Every thread that seals or opens calls it first.
void PrepareAeadThread();

// The key of one lane in one direction at one epoch: BLAKE2b (libsodium's crypto_kdf) of the
// direction's root with lane and epoch as the subkey's number.
Key DeriveLaneKey(const Key& root, uint8_t lane, uint32_t epoch);

// For the back-ends' own files: the candidates of each, empty where the machine lacks something.
std::vector<const Aead*> SodiumAeads();
std::vector<const Aead*> IpsecMbAeads();
void PrepareIpsecMbThread();

}  // namespace braid
