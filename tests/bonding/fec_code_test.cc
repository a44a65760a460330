// Any so many parity symbols make up for as many lost data symbols.
#include "bonding/fec_code.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <numeric>
#include <random>
#include <vector>

namespace braid::fec_code_test {
namespace {

constexpr size_t kSymbolBytes = 1423;

using Symbol = std::vector<uint8_t>;

std::vector<uint8_t*> Pointers(std::vector<Symbol>& symbols) {
  std::vector<uint8_t*> pointers;
  for (Symbol& symbol : symbols) pointers.push_back(symbol.data());
  return pointers;
}

class FecCodeTest : public ::testing::Test {
 protected:
  // Symbols of different lengths; the first is the longest.
  void Make(size_t data, size_t parity) {
    for (size_t i = 0; i < data; ++i) {
      data_.emplace_back(i == 0 ? kSymbolBytes : 1 + random_() % kSymbolBytes);
      for (uint8_t& byte : data_.back()) byte = static_cast<uint8_t>(random_());
    }
    parity_.assign(parity, Symbol(kSymbolBytes));
    const std::vector<uint8_t*> symbols = Pointers(parity_);
    for (size_t i = 0; i < data; ++i) code_->Add(i, data_[i], symbols);
  }

  // Loses some data symbols, and makes up for them with as many parity symbols.
  void LoseAndRecover(std::vector<uint8_t> columns, std::vector<uint8_t> rows) {
    std::vector<Symbol> chosen;
    for (const uint8_t row : rows) chosen.push_back(parity_[row]);
    for (size_t column = 0; column < data_.size(); ++column) {
      if (std::count(columns.begin(), columns.end(), column) != 0) continue;
      for (size_t i = 0; i < rows.size(); ++i) {
        code_->AddTo(rows[i], column, data_[column], chosen[i].data());
      }
    }
    std::vector<Symbol> made(columns.size(), Symbol(kSymbolBytes, 0xee));
    code_->Solve(rows, columns, kSymbolBytes, Pointers(chosen), Pointers(made));
    for (size_t i = 0; i < columns.size(); ++i) {
      Symbol whole = data_[columns[i]];
      whole.resize(kSymbolBytes);
      ASSERT_EQ(made[i], whole) << "symbol " << int{columns[i]} << " of " << data_.size();
    }
  }

  std::vector<uint8_t> SomeOf(size_t count, size_t all) {
    std::vector<uint8_t> numbers(all);
    std::iota(numbers.begin(), numbers.end(), uint8_t{0});
    std::shuffle(numbers.begin(), numbers.end(), random_);
    numbers.resize(count);
    return numbers;
  }

  std::mt19937 random_{7};
  const std::unique_ptr<FecCode> code_ = std::make_unique<FecCode>();
  std::vector<Symbol> data_;
  std::vector<Symbol> parity_;
};

TEST_F(FecCodeTest, AnyParityMakesUpForAnyLoss) {
  for (const auto& [data, parity] : {std::pair<size_t, size_t>{1, 1},
                                     {2, 1},
                                     {10, 3},
                                     {40, 6},
                                     {FecCode::kMaxData, FecCode::kMaxParity}}) {
    data_.clear();
    Make(data, parity);
    for (size_t lost = 1; lost <= std::min(data, parity); ++lost) {
      LoseAndRecover(SomeOf(lost, data), SomeOf(lost, parity));
    }
  }
}

TEST_F(FecCodeTest, FewParitySymbolsAreTheFirstOfMany) {
  Make(20, 8);
  std::vector<Symbol> few(2, Symbol(kSymbolBytes));
  for (size_t i = 0; i < data_.size(); ++i) code_->Add(i, data_[i], Pointers(few));
  EXPECT_EQ(few[0], parity_[0]);
  EXPECT_EQ(few[1], parity_[1]);
}

TEST_F(FecCodeTest, WhatIsAddedTwiceIsOutAgain) {
  Make(3, 2);
  for (size_t i = 0; i < data_.size(); ++i) code_->Add(i, data_[i], Pointers(parity_));
  EXPECT_EQ(parity_[0], Symbol(kSymbolBytes));
  EXPECT_EQ(parity_[1], Symbol(kSymbolBytes));
}

}  // namespace
}  // namespace braid::fec_code_test
