// The one rule that everything else rests on: no nonce is ever used twice under one key. Real
// senders seal millions of packets over an AEAD that only writes down what it was asked to use.
#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "fastpath/lane.h"
#include "support/packets.h"
#include "support/test_keys.h"

namespace braid::nonce_log_test {
namespace {

// A digest of the key and the whole nonce, exactly: the nonce holds no more than 80 bits, of which
// the sequences of this test leave 48 unused.
struct Use {
  uint64_t key;
  uint64_t nonce;

  auto operator<=>(const Use&) const = default;
};

std::vector<Use> log_of_uses;
bool nonce_was_packed;

uint64_t Digest(const Key& key) {
  uint64_t digest = 0xcbf29ce484222325;  // FNV-1a
  for (const uint8_t byte : key) digest = (digest ^ byte) * 0x100000001b3;
  return digest;
}

void RecordingExpand(const Key& key, AeadKey& expanded) {
  StoreNative(expanded.bytes.data(), Digest(key));
}

void RecordingSeal(const AeadKey& key, const Nonce& nonce, Bytes, Bytes, uint8_t*) {
  const uint64_t sequence = LoadBe64(&nonce[4]);
  nonce_was_packed &= nonce[0] == 0 && nonce[1] == 0 && sequence < uint64_t{1} << 48;
  log_of_uses.push_back({LoadNative<uint64_t>(key.bytes.data()),
                         uint64_t{nonce[2]} << 56 | uint64_t{nonce[3]} << 48 | sequence});
}

constexpr Aead kRecording{Cipher::kAes256Gcm, "recording", RecordingExpand, RecordingSeal, nullptr};

TEST(NonceLog, HasNoNonceTwiceUnderOneKey) {
  constexpr size_t kPackets = 10'000'000;
  constexpr uint8_t kLanes = 16;
  constexpr uint64_t kEpochPackets = 5'000;
  testing::Random random(1);
  log_of_uses.clear();
  log_of_uses.reserve(kPackets);
  nonce_was_packed = true;

  // Two sessions whose keypairs are renewed by turns; now and then one goes back to its previous
  // keypair, as a responder does that has not heard of the new one yet.
  struct Session {
    std::vector<Keypair> keypairs;
    size_t keypair = 0;
    std::array<LaneSender, kLanes> lanes;
  };
  std::array<Session, 2> sessions;
  uint64_t keypairs = 0;
  const auto renew = [&](Session& session) {
    session.keypairs.push_back(testing::MakeKeypair(++keypairs, &kRecording, kEpochPackets).client);
    // Both directions' roots are drawn from a hash: here, from their number.
    StoreNative(session.keypairs.back().send_root.data(), keypairs);
    session.keypair = session.keypairs.size() - 1;
  };
  for (Session& session : sessions) renew(session);

  std::array<uint8_t, kSealOverheadBytes> out;
  size_t refused = 0;
  size_t epochs = 0;
  while (log_of_uses.size() < kPackets) {
    Session& session = sessions[testing::Below(random, sessions.size())];
    switch (testing::Below(random, 4000)) {
      case 0:
        renew(session);
        break;
      case 1:
        session.keypair -= session.keypair > 0 ? 1 : 0;
        break;
      default:
        break;
    }
    const Keypair& keypair = session.keypairs[session.keypair];
    const auto lane = static_cast<uint8_t>(testing::Below(random, kLanes));
    LaneSender& sender = session.lanes[lane];
    if (sender.Prepare(keypair, lane, kSecondNs)) {
      ++refused;
      // Some confirmations are lost, old, or of another keypair.
      const auto epoch = static_cast<uint32_t>(testing::Below(random, 300));
      sender.ConfirmEpoch(keypair.remote_index, epoch);
      continue;
    }
    const uint64_t train = std::min(sender.left(), 1 + testing::Below(random, 200));
    for (uint64_t i = 0; i < train && log_of_uses.size() < kPackets; ++i) {
      const auto path = static_cast<uint8_t>(testing::Below(random, 4) << kPathCopyShift |
                                             testing::Below(random, kMaxPaths));
      sender.Seal(Kind::kData, path, 0, {}, out.data());
      epochs = std::max<size_t>(epochs, out[10]);
    }
  }

  EXPECT_TRUE(nonce_was_packed);
  EXPECT_GT(keypairs, 20u);
  EXPECT_GT(refused, 100u);
  EXPECT_GT(epochs, 2u);
  std::sort(log_of_uses.begin(), log_of_uses.end());
  EXPECT_EQ(std::adjacent_find(log_of_uses.begin(), log_of_uses.end()), log_of_uses.end());
  log_of_uses = {};
}

// The same with every sequence forced onto every path: what keeps the copies of one packet apart is
// the path in the nonce.
TEST(NonceLog, TellsTheCopiesOfOnePacketApartByTheirPath) {
  std::vector<Nonce> nonces;
  for (int path = 0; path < 256; ++path) {
    for (const int lane : {0, 1, 127, 255}) {
      for (const uint64_t sequence : {uint64_t{0}, uint64_t{1}, uint64_t{255}, uint64_t{1} << 59}) {
        nonces.push_back(
            MakeNonce(static_cast<uint8_t>(path), static_cast<uint8_t>(lane), sequence));
      }
    }
  }
  std::sort(nonces.begin(), nonces.end());
  EXPECT_EQ(std::adjacent_find(nonces.begin(), nonces.end()), nonces.end());
}

}  // namespace
}  // namespace braid::nonce_log_test
