// The code behind forward error correction: Reed-Solomon over GF(2^8) with a Cauchy matrix, so any
// so many parity symbols of a block make up for as many data symbols that are lost (Blömer et al.,
// An XOR-Based Erasure-Resilient Coding Scheme, 1995). Intel ISA-L multiplies. A data symbol may be
// shorter than the others of its block: zeros are behind it.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "base/bytes.h"

namespace braid {

class FecCode {
 public:
  static constexpr size_t kMaxData = 64;    // symbols of a block
  static constexpr size_t kMaxParity = 32;  // beside them

  FecCode();

  // Adds data symbol `column` to the parity symbols 0 … parity.size() - 1, zero at first; or takes
  // it out again.
  void Add(size_t column, Bytes data, std::span<uint8_t* const> parity) const;
  // The same with a single one.
  void AddTo(size_t row, size_t column, Bytes data, uint8_t* parity) const;

  // Makes of the parity symbols `rows`, out of which all data symbols but `columns` were taken,
  // these `columns`. As many of one as of the other, each once.
  void Solve(std::span<const uint8_t> rows, std::span<const uint8_t> columns, size_t bytes,
             std::span<uint8_t* const> parity, std::span<uint8_t* const> data) const;

 private:
  static constexpr size_t kTableBytes = 32;  // of one coefficient

  static uint8_t Coefficient(size_t row, size_t column);

  // By row, then column.
  std::array<uint8_t, kMaxParity * kMaxData * kTableBytes> tables_;
};

}  // namespace braid
