// The fast back-end on x86-64: intel-ipsec-mb. AES-256-GCM goes through its direct calls, which
// need no state; ChaCha20-Poly1305 through a job, which measured 1.4 times as fast as the direct
// calls (384 against 527 ns for 1420 bytes) and completes within its own submission, but keeps
// state in the manager: so each thread has a manager of its own.
#include <intel-ipsec-mb.h>

#include <memory>

#include "fastpath/aead.h"

namespace braid {
namespace {

struct ManagerDeleter {
  void operator()(IMB_MGR* manager) const { free_mb_mgr(manager); }
};

thread_local std::unique_ptr<IMB_MGR, ManagerDeleter> manager_of_this_thread;

IMB_MGR* Manager() { return manager_of_this_thread.get(); }

// In constant time; a call into libsodium for it costs 13 ns.
bool SameTag(const uint8_t* a, const uint8_t* b) {
  static_assert(kTagBytes == 2 * sizeof(uint64_t));
  const uint64_t difference = (LoadNative<uint64_t>(a) ^ LoadNative<uint64_t>(b)) |
                              (LoadNative<uint64_t>(a + 8) ^ LoadNative<uint64_t>(b + 8));
  return difference == 0;
}

static_assert(sizeof(gcm_key_data) <= sizeof(AeadKey));

const gcm_key_data* GcmKey(const AeadKey& key) {
  return reinterpret_cast<const gcm_key_data*>(key.bytes.data());
}

void ExpandAes(const Key& key, AeadKey& expanded) {
  IMB_AES256_GCM_PRE(Manager(), key.data(), reinterpret_cast<gcm_key_data*>(expanded.bytes.data()));
}

void SealAes(const AeadKey& key, const Nonce& nonce, Bytes associated, Bytes plain, uint8_t* out) {
  gcm_context_data context;
  IMB_AES256_GCM_ENC(Manager(), GcmKey(key), &context, out, plain.data(), plain.size(),
                     nonce.data(), associated.data(), associated.size(), out + plain.size(),
                     kTagBytes);
}

bool OpenAes(const AeadKey& key, const Nonce& nonce, Bytes associated, MutableBytes sealed) {
  const size_t plain_bytes = sealed.size() - kTagBytes;
  gcm_context_data context;
  uint8_t tag[kTagBytes];
  IMB_AES256_GCM_DEC(Manager(), GcmKey(key), &context, sealed.data(), sealed.data(), plain_bytes,
                     nonce.data(), associated.data(), associated.size(), tag, kTagBytes);
  return SameTag(tag, sealed.data() + plain_bytes);
}

void ExpandChaCha(const Key& key, AeadKey& expanded) {
  std::memcpy(expanded.bytes.data(), key.data(), key.size());
}

void RunChaChaJob(IMB_CIPHER_DIRECTION direction, const AeadKey& key, const Nonce& nonce,
                  Bytes associated, Bytes in, uint8_t* out, uint8_t* tag) {
  IMB_MGR* manager = Manager();
  IMB_JOB* job = IMB_GET_NEXT_JOB(manager);
  job->cipher_mode = IMB_CIPHER_CHACHA20_POLY1305;
  job->hash_alg = IMB_AUTH_CHACHA20_POLY1305;
  job->cipher_direction = direction;
  job->chain_order = direction == IMB_DIR_ENCRYPT ? IMB_ORDER_CIPHER_HASH : IMB_ORDER_HASH_CIPHER;
  job->enc_keys = key.bytes.data();
  job->dec_keys = key.bytes.data();
  job->key_len_in_bytes = sizeof(Key);
  job->iv = nonce.data();
  job->iv_len_in_bytes = nonce.size();
  job->src = in.data();
  job->dst = out;
  job->cipher_start_src_offset_in_bytes = 0;
  job->msg_len_to_cipher_in_bytes = in.size();
  job->hash_start_src_offset_in_bytes = 0;
  job->msg_len_to_hash_in_bytes = in.size();
  job->auth_tag_output = tag;
  job->auth_tag_output_len_in_bytes = kTagBytes;
  job->u.CHACHA20_POLY1305.aad = associated.data();
  job->u.CHACHA20_POLY1305.aad_len_in_bytes = associated.size();
  IMB_SUBMIT_JOB_NOCHECK(manager);
}

void SealChaCha(const AeadKey& key, const Nonce& nonce, Bytes associated, Bytes plain,
                uint8_t* out) {
  RunChaChaJob(IMB_DIR_ENCRYPT, key, nonce, associated, plain, out, out + plain.size());
}

bool OpenChaCha(const AeadKey& key, const Nonce& nonce, Bytes associated, MutableBytes sealed) {
  const Bytes text = sealed.first(sealed.size() - kTagBytes);
  uint8_t tag[kTagBytes];
  RunChaChaJob(IMB_DIR_DECRYPT, key, nonce, associated, text, sealed.data(), tag);
  return SameTag(tag, sealed.data() + text.size());
}

constexpr Aead kAes{Cipher::kAes256Gcm, "ipsec-mb", ExpandAes, SealAes, OpenAes};
constexpr Aead kChaCha{Cipher::kChaCha20Poly1305, "ipsec-mb", ExpandChaCha, SealChaCha, OpenChaCha};

}  // namespace

void PrepareIpsecMbThread() {
  if (manager_of_this_thread != nullptr) return;
  std::unique_ptr<IMB_MGR, ManagerDeleter> manager(alloc_mb_mgr(0));
  if (manager == nullptr) return;
  IMB_ARCH architecture = IMB_ARCH_NONE;
  init_mb_mgr_auto(manager.get(), &architecture);
  // Below SSE the library emulates AES in software that is neither fast nor constant in time.
  if (architecture >= IMB_ARCH_SSE) manager_of_this_thread = std::move(manager);
}

std::vector<const Aead*> IpsecMbAeads() {
  if (Manager() == nullptr) return {};
  return {&kAes, &kChaCha};
}

}  // namespace braid
