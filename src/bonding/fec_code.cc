#include "bonding/fec_code.h"

#include <isa-l/erasure_code.h>

#include <cstdlib>

namespace braid {
namespace {

// ISA-L does not say which of its arguments it only reads.
uint8_t* Unconst(const uint8_t* bytes) { return const_cast<uint8_t*>(bytes); }
uint8_t** Unconst(uint8_t* const* symbols) { return const_cast<uint8_t**>(symbols); }

}  // namespace

// 1 / (x + y), where no x is a y.
uint8_t FecCode::Coefficient(size_t row, size_t column) {
  static_assert(kMaxData + kMaxParity <= 256);
  return gf_inv(static_cast<uint8_t>((kMaxData + row) ^ column));
}

FecCode::FecCode() {
  std::array<uint8_t, kMaxParity * kMaxData> matrix;
  for (size_t row = 0; row < kMaxParity; ++row) {
    for (size_t column = 0; column < kMaxData; ++column) {
      matrix[row * kMaxData + column] = Coefficient(row, column);
    }
  }
  ec_init_tables(kMaxData, kMaxParity, matrix.data(), tables_.data());
}

void FecCode::Add(size_t column, Bytes data, std::span<uint8_t* const> parity) const {
  ec_encode_data_update(static_cast<int>(data.size()), kMaxData, static_cast<int>(parity.size()),
                        static_cast<int>(column), Unconst(tables_.data()), Unconst(data.data()),
                        Unconst(parity.data()));
}

void FecCode::AddTo(size_t row, size_t column, Bytes data, uint8_t* parity) const {
  ec_encode_data_update(static_cast<int>(data.size()), kMaxData, 1, static_cast<int>(column),
                        Unconst(&tables_[row * kMaxData * kTableBytes]), Unconst(data.data()),
                        &parity);
}

void FecCode::Solve(std::span<const uint8_t> rows, std::span<const uint8_t> columns, size_t bytes,
                    std::span<uint8_t* const> parity, std::span<uint8_t* const> data) const {
  const size_t symbols = rows.size();
  std::array<uint8_t, kMaxParity * kMaxParity> matrix;
  for (size_t i = 0; i < symbols; ++i) {
    for (size_t j = 0; j < symbols; ++j) matrix[i * symbols + j] = Coefficient(rows[i], columns[j]);
  }
  std::array<uint8_t, kMaxParity * kMaxParity> inverse;
  const auto size = static_cast<int>(symbols);
  // Every square part of a Cauchy matrix can be inverted.
  if (gf_invert_matrix(matrix.data(), inverse.data(), size) != 0) std::abort();
  std::array<uint8_t, kMaxParity * kMaxParity * kTableBytes> tables;
  ec_init_tables(size, size, inverse.data(), tables.data());
  ec_encode_data(static_cast<int>(bytes), size, size, tables.data(), Unconst(parity.data()),
                 Unconst(data.data()));
}

}  // namespace braid
