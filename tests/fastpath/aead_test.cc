// The AEAD back-ends: the same bytes from each, the published vectors, and every change refused.
#include "fastpath/aead.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <thread>

#include "support/packets.h"
#include "support/test_keys.h"

namespace braid::aead_test {
namespace {

using Json = nlohmann::json;
using testing::Below;
using testing::Buffer;
using testing::Random;
using testing::RandomBytes;

constexpr Cipher kBothCiphers[] = {Cipher::kChaCha20Poly1305, Cipher::kAes256Gcm};

Key RandomKey(Random& random) {
  Key key;
  for (uint8_t& byte : key) byte = static_cast<uint8_t>(random());
  return key;
}

Buffer Seal(const Aead& aead, const Key& key, const Nonce& nonce, Bytes associated, Bytes plain) {
  AeadKey expanded;
  aead.expand(key, expanded);
  Buffer sealed(plain.size() + kTagBytes);
  aead.seal(expanded, nonce, associated, plain, sealed.data());
  return sealed;
}

// The plaintext, or nothing when it is refused.
std::optional<Buffer> Open(const Aead& aead, const Key& key, const Nonce& nonce, Bytes associated,
                           Buffer sealed) {
  AeadKey expanded;
  aead.expand(key, expanded);
  if (!aead.open(expanded, nonce, associated, sealed)) return std::nullopt;
  return Buffer(sealed.begin(), sealed.end() - kTagBytes);
}

std::string Name(const Aead& aead) {
  return std::string(aead.backend) + " " + std::string(CipherName(aead.cipher));
}

class AeadTest : public ::testing::Test {
 protected:
  AeadTest() { PrepareAeadThread(); }
};

TEST_F(AeadTest, SodiumServesChaChaEverywhere) {
  const auto available = AvailableAeads(Cipher::kChaCha20Poly1305);
  ASSERT_FALSE(available.empty());
  EXPECT_EQ(available.back()->backend, "sodium");
}

TEST_F(AeadTest, ChoosesTheFastestOrTheOneAskedFor) {
  const auto chosen = ChooseAeads("auto");
  ASSERT_TRUE(chosen.ok()) << chosen.status();
  for (const Cipher cipher : kBothCiphers) {
    const auto available = AvailableAeads(cipher);
    EXPECT_EQ((*chosen)[cipher], available.empty() ? nullptr : available.front());
    for (const Aead* aead : available) {
      const auto asked = ChooseAeads(aead->backend);
      ASSERT_TRUE(asked.ok()) << asked.status();
      EXPECT_EQ((*asked)[cipher], aead);
    }
  }
  EXPECT_FALSE(ChooseAeads("abacus").ok());
}

TEST_F(AeadTest, BackEndsGiveTheSameBytesForEverySize) {
  Random random(1);
  for (const Cipher cipher : kBothCiphers) {
    const auto aeads = AvailableAeads(cipher);
    if (aeads.size() < 2) GTEST_SKIP() << "this machine has one back-end only";
    for (int round = 0; round < 3000; ++round) {
      const size_t bytes = round < 600 ? static_cast<size_t>(round) : Below(random, 9001);
      const Key key = RandomKey(random);
      const Nonce nonce = MakeNonce(static_cast<uint8_t>(random()), 3, random());
      const Buffer associated = RandomBytes(random, round % 4 == 0 ? Below(random, 80) : 24);
      const Buffer plain = RandomBytes(random, bytes);
      const Buffer first = Seal(*aeads[0], key, nonce, associated, plain);
      const Buffer second = Seal(*aeads[1], key, nonce, associated, plain);
      ASSERT_EQ(first, second) << CipherName(cipher) << ", bytes: " << bytes;
      for (const Aead* aead : aeads) {
        ASSERT_EQ(Open(*aead, key, nonce, associated, first), plain) << Name(*aead) << " " << bytes;
      }
    }
  }
}

// Source, target and associated data anywhere, apart or in place, and not a byte written beside
// them.
TEST_F(AeadTest, WorksAtEveryAlignmentAndWritesNothingBeside) {
  constexpr uint8_t kCanary = 0xa5;
  constexpr size_t kMargin = 64;
  Random random(2);
  for (const Cipher cipher : kBothCiphers) {
    for (const Aead* aead : AvailableAeads(cipher)) {
      SCOPED_TRACE(Name(*aead));
      const Key key = RandomKey(random);
      AeadKey expanded;
      aead->expand(key, expanded);
      for (size_t shift = 0; shift < 64; ++shift) {
        const size_t bytes = Below(random, 2000);
        const Nonce nonce = MakeNonce(1, 2, shift);
        const Buffer plain = RandomBytes(random, bytes);
        const Buffer associated = RandomBytes(random, 24);
        const Buffer expected = Seal(*aead, key, nonce, associated, plain);
        for (const bool in_place : {false, true}) {
          Buffer memory(kMargin + shift + bytes + kTagBytes + kMargin, kCanary);
          Buffer source(64 - shift + bytes);
          uint8_t* out = memory.data() + kMargin + shift;
          uint8_t* in = in_place ? out : source.data() + 64 - shift;
          std::copy(plain.begin(), plain.end(), in);
          aead->seal(expanded, nonce, associated, {in, bytes}, out);
          ASSERT_TRUE(std::equal(expected.begin(), expected.end(), out));
          ASSERT_TRUE(aead->open(expanded, nonce, associated, {out, bytes + kTagBytes}));
          ASSERT_TRUE(std::equal(plain.begin(), plain.end(), out));
          for (size_t i = 0; i < kMargin; ++i) {
            ASSERT_EQ(memory[i], kCanary);
            ASSERT_EQ(memory[memory.size() - 1 - i], kCanary);
          }
        }
      }
    }
  }
}

TEST_F(AeadTest, SealsNothingAtAll) {
  for (const Cipher cipher : kBothCiphers) {
    for (const Aead* aead : AvailableAeads(cipher)) {
      const Buffer sealed = Seal(*aead, Key{}, Nonce{}, {}, {});
      EXPECT_EQ(Open(*aead, Key{}, Nonce{}, {}, sealed), Buffer{}) << Name(*aead);
    }
  }
}

TEST_F(AeadTest, RefusesEveryFlippedBit) {
  Random random(3);
  for (const Cipher cipher : kBothCiphers) {
    for (const Aead* aead : AvailableAeads(cipher)) {
      SCOPED_TRACE(Name(*aead));
      for (const size_t bytes : {0, 1, 15, 16, 17, 100, 300}) {
        const Key key = RandomKey(random);
        const Nonce nonce = MakeNonce(1, 2, 3);
        const Buffer associated = RandomBytes(random, 24);
        const Buffer sealed = Seal(*aead, key, nonce, associated, RandomBytes(random, bytes));
        const auto flipped = [](auto bytes_of, size_t bit) {
          bytes_of[bit / 8] ^= static_cast<uint8_t>(1 << bit % 8);
          return bytes_of;
        };
        for (size_t bit = 0; bit < sealed.size() * 8; ++bit) {
          ASSERT_FALSE(Open(*aead, key, nonce, associated, flipped(sealed, bit))) << bit;
        }
        for (size_t bit = 0; bit < associated.size() * 8; ++bit) {
          ASSERT_FALSE(Open(*aead, key, nonce, flipped(associated, bit), sealed)) << bit;
        }
        for (size_t bit = 0; bit < nonce.size() * 8; ++bit) {
          ASSERT_FALSE(Open(*aead, key, flipped(nonce, bit), associated, sealed)) << bit;
        }
        for (size_t bit = 0; bit < key.size() * 8; ++bit) {
          ASSERT_FALSE(Open(*aead, flipped(key, bit), nonce, associated, sealed)) << bit;
        }
        ASSERT_TRUE(Open(*aead, key, nonce, associated, sealed));
      }
    }
  }
}

TEST_F(AeadTest, MayBeUsedByManyThreadsAtOnce) {
  for (const Cipher cipher : kBothCiphers) {
    for (const Aead* aead : AvailableAeads(cipher)) {
      AeadKey key;
      aead->expand(testing::KeyFilledWith(9), key);
      std::vector<std::thread> threads;
      for (uint8_t lane = 0; lane < 4; ++lane) {
        threads.emplace_back([&, lane] {
          PrepareAeadThread();
          Random random(lane);
          for (uint64_t sequence = 0; sequence < 500; ++sequence) {
            const Buffer plain = RandomBytes(random, Below(random, 1500));
            Buffer sealed(plain.size() + kTagBytes);
            const Nonce nonce = MakeNonce(0, lane, sequence);
            aead->seal(key, nonce, {}, plain, sealed.data());
            ASSERT_TRUE(aead->open(key, nonce, {}, sealed));
            sealed.resize(plain.size());
            ASSERT_EQ(sealed, plain);
          }
        });
      }
      for (std::thread& thread : threads) thread.join();
    }
  }
}

TEST(DeriveLaneKey, DiffersByRootLaneAndEpoch) {
  std::set<Key> keys;
  size_t derived = 0;
  for (const uint8_t root : {1, 2}) {
    for (const uint8_t lane : {0, 1, 127, 255}) {
      for (const uint32_t epoch : {0u, 1u, 2u, 256u, 0xffffffffu}) {
        keys.insert(DeriveLaneKey(testing::KeyFilledWith(root), lane, epoch));
        ++derived;
      }
    }
  }
  EXPECT_EQ(keys.size(), derived);
  EXPECT_EQ(DeriveLaneKey(testing::KeyFilledWith(1), 2, 3),
            DeriveLaneKey(testing::KeyFilledWith(1), 2, 3));
}

// Project Wycheproof.

Buffer FromHex(const std::string& text) {
  Buffer bytes;
  for (size_t i = 0; i + 1 < text.size(); i += 2) {
    bytes.push_back(static_cast<uint8_t>(std::stoul(text.substr(i, 2), nullptr, 16)));
  }
  return bytes;
}

struct WycheproofCount {
  int valid = 0;
  int invalid = 0;
  int wrong_nonce_size = 0;  // cannot be expressed: the nonce's size is in its type
};

void RunWycheproof(const Aead& aead, const Json& test, WycheproofCount& count) {
  SCOPED_TRACE("test " + test.at("tcId").dump() + ": " + std::string(test.at("comment")));
  const Buffer nonce_bytes = FromHex(test.at("iv"));
  Nonce nonce;
  if (nonce_bytes.size() != nonce.size()) {
    EXPECT_EQ(test.at("result"), "invalid");
    ++count.wrong_nonce_size;
    return;
  }
  std::copy(nonce_bytes.begin(), nonce_bytes.end(), nonce.begin());
  Key key;
  const Buffer key_bytes = FromHex(test.at("key"));
  ASSERT_EQ(key_bytes.size(), key.size());
  std::copy(key_bytes.begin(), key_bytes.end(), key.begin());
  const Buffer associated = FromHex(test.at("aad"));
  const Buffer plain = FromHex(test.at("msg"));
  Buffer sealed = FromHex(test.at("ct"));
  const Buffer tag = FromHex(test.at("tag"));
  sealed.insert(sealed.end(), tag.begin(), tag.end());
  if (test.at("result") == "valid") {
    EXPECT_EQ(Seal(aead, key, nonce, associated, plain), sealed);
    EXPECT_EQ(Open(aead, key, nonce, associated, sealed), plain);
    ++count.valid;
  } else {
    EXPECT_FALSE(Open(aead, key, nonce, associated, sealed));
    ++count.invalid;
  }
}

TEST_F(AeadTest, PassesWycheproof) {
  const char* folder = std::getenv("BRAID_VECTORS");
  const std::filesystem::path path =
      std::filesystem::path(folder != nullptr ? folder : "../shared/vectors") / "wycheproof" /
      "chacha20_poly1305_test.json";
  if (!std::filesystem::exists(path)) {
    GTEST_SKIP() << "no test vectors at " << path
                 << ": BRAID_VECTORS names the folder that holds wycheproof/";
  }
  std::ifstream file(path);
  const Json document = Json::parse(file);
  for (const Aead* aead : AvailableAeads(Cipher::kChaCha20Poly1305)) {
    SCOPED_TRACE(Name(*aead));
    WycheproofCount count;
    for (const Json& group : document.at("testGroups")) {
      for (const Json& test : group.at("tests")) RunWycheproof(*aead, test, count);
    }
    EXPECT_EQ(count.valid + count.invalid + count.wrong_nonce_size,
              document.at("numberOfTests").get<int>());
    EXPECT_GT(count.valid, 200);
    EXPECT_GT(count.invalid, 40);
    EXPECT_EQ(count.wrong_nonce_size, 9);
  }
}

}  // namespace
}  // namespace braid::aead_test
