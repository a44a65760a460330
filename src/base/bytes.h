// Big-endian loads and stores, and the spans that the code passes bytes in.
// A span borrows: whoever hands one over keeps the memory alive until the call returns.
#pragma once

#include <array>
#include <bit>
#include <cstdint>
#include <cstring>
#include <span>

namespace braid {

using Bytes = std::span<const uint8_t>;
using MutableBytes = std::span<uint8_t>;
using Key = std::array<uint8_t, 32>;

template <typename T>
T LoadNative(const uint8_t* from) {
  T value;
  std::memcpy(&value, from, sizeof(value));
  return value;
}

template <typename T>
void StoreNative(uint8_t* to, T value) {
  std::memcpy(to, &value, sizeof(value));
}

static_assert(std::endian::native == std::endian::little);

inline uint16_t LoadBe16(const uint8_t* from) {
  return __builtin_bswap16(LoadNative<uint16_t>(from));
}
inline uint32_t LoadBe32(const uint8_t* from) {
  return __builtin_bswap32(LoadNative<uint32_t>(from));
}
inline uint64_t LoadBe64(const uint8_t* from) {
  return __builtin_bswap64(LoadNative<uint64_t>(from));
}
inline void StoreBe16(uint8_t* to, uint16_t value) { StoreNative(to, __builtin_bswap16(value)); }
inline void StoreBe32(uint8_t* to, uint32_t value) { StoreNative(to, __builtin_bswap32(value)); }
inline void StoreBe64(uint8_t* to, uint64_t value) { StoreNative(to, __builtin_bswap64(value)); }

}  // namespace braid
