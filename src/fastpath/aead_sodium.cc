// The portable back-end: libsodium.
#include <sodium.h>

#include "fastpath/aead.h"

namespace braid {
namespace {

void ExpandChaCha(const Key& key, AeadKey& expanded) {
  std::memcpy(expanded.bytes.data(), key.data(), key.size());
}

void SealChaCha(const AeadKey& key, const Nonce& nonce, Bytes associated, Bytes plain,
                uint8_t* out) {
  crypto_aead_chacha20poly1305_ietf_encrypt(out, nullptr, plain.data(), plain.size(),
                                            associated.data(), associated.size(), nullptr,
                                            nonce.data(), key.bytes.data());
}

bool OpenChaCha(const AeadKey& key, const Nonce& nonce, Bytes associated, MutableBytes sealed) {
  return crypto_aead_chacha20poly1305_ietf_decrypt(
             sealed.data(), nullptr, nullptr, sealed.data(), sealed.size(), associated.data(),
             associated.size(), nonce.data(), key.bytes.data()) == 0;
}

static_assert(sizeof(crypto_aead_aes256gcm_state) <= sizeof(AeadKey));

auto* AesState(const AeadKey& key) {
  return reinterpret_cast<const crypto_aead_aes256gcm_state*>(key.bytes.data());
}

void ExpandAes(const Key& key, AeadKey& expanded) {
  auto* state = reinterpret_cast<crypto_aead_aes256gcm_state*>(expanded.bytes.data());
  crypto_aead_aes256gcm_beforenm(state, key.data());
}

void SealAes(const AeadKey& key, const Nonce& nonce, Bytes associated, Bytes plain, uint8_t* out) {
  crypto_aead_aes256gcm_encrypt_afternm(out, nullptr, plain.data(), plain.size(), associated.data(),
                                        associated.size(), nullptr, nonce.data(), AesState(key));
}

bool OpenAes(const AeadKey& key, const Nonce& nonce, Bytes associated, MutableBytes sealed) {
  return crypto_aead_aes256gcm_decrypt_afternm(sealed.data(), nullptr, nullptr, sealed.data(),
                                               sealed.size(), associated.data(), associated.size(),
                                               nonce.data(), AesState(key)) == 0;
}

constexpr Aead kChaCha{Cipher::kChaCha20Poly1305, "sodium", ExpandChaCha, SealChaCha, OpenChaCha};
constexpr Aead kAes{Cipher::kAes256Gcm, "sodium", ExpandAes, SealAes, OpenAes};

}  // namespace

std::vector<const Aead*> SodiumAeads() {
  std::vector<const Aead*> aeads = {&kChaCha};
  if (crypto_aead_aes256gcm_is_available() != 0) aeads.push_back(&kAes);
  return aeads;
}

}  // namespace braid
