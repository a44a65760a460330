#include "slowpath/cpu_list.h"

#include <algorithm>
#include <charconv>
#include <cstdint>

#include "absl/strings/str_format.h"

namespace braid {
namespace {

constexpr int kBitsPerWord = 32;

std::optional<int> ParseNumber(std::string_view text) {
  int number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  const bool whole = error == std::errc() && end == text.data() + text.size();
  return whole && number >= 0 && number < kMaxCpus ? std::optional(number) : std::nullopt;
}

// Takes what stands before the next comma.
std::string_view TakePart(std::string_view& text) {
  const size_t comma = text.find(',');
  const std::string_view part = text.substr(0, comma);
  text.remove_prefix(comma == text.npos ? text.size() : comma + 1);
  return part;
}

}  // namespace

std::optional<std::vector<int>> ParseCpuList(std::string_view text) {
  std::vector<int> cpus;
  if (!text.empty() && text.back() == ',') return std::nullopt;
  while (!text.empty()) {
    const std::string_view part = TakePart(text);
    const size_t dash = part.find('-');
    const auto first = ParseNumber(part.substr(0, dash));
    const auto last = dash == part.npos ? first : ParseNumber(part.substr(dash + 1));
    if (!first || !last || *first > *last) return std::nullopt;
    for (int cpu = *first; cpu <= *last; ++cpu) cpus.push_back(cpu);
    // Overlapping ranges could otherwise make a small text large.
    if (cpus.size() > kMaxCpus) return std::nullopt;
  }
  std::sort(cpus.begin(), cpus.end());
  cpus.erase(std::unique(cpus.begin(), cpus.end()), cpus.end());
  return cpus;
}

std::optional<std::vector<int>> ParseCpuMask(std::string_view text) {
  std::vector<uint32_t> words;  // as written: the highest first
  if (!text.empty() && text.back() == ',') return std::nullopt;
  while (!text.empty()) {
    const std::string_view part = TakePart(text);
    uint32_t word = 0;
    const auto [end, error] = std::from_chars(part.data(), part.data() + part.size(), word, 16);
    if (error != std::errc() || end != part.data() + part.size()) return std::nullopt;
    words.push_back(word);
    if (words.size() > kMaxCpus / kBitsPerWord) return std::nullopt;
  }
  std::vector<int> cpus;
  for (size_t i = 0; i < words.size(); ++i) {
    const uint32_t word = words[words.size() - 1 - i];
    for (int bit = 0; bit < kBitsPerWord; ++bit) {
      if ((word >> bit & 1) != 0) cpus.push_back(static_cast<int>(i) * kBitsPerWord + bit);
    }
  }
  return cpus;
}

std::string FormatCpuList(const std::vector<int>& cpus) {
  std::string text;
  for (size_t i = 0; i < cpus.size();) {
    size_t last = i;
    while (last + 1 < cpus.size() && cpus[last + 1] == cpus[last] + 1) ++last;
    if (!text.empty()) text += ',';
    text += std::to_string(cpus[i]);
    if (last > i) text += '-' + std::to_string(cpus[last]);
    i = last + 1;
  }
  return text;
}

std::string FormatCpuMask(const std::vector<int>& cpus) {
  if (cpus.empty()) return "0";
  std::vector<uint32_t> words(static_cast<size_t>(cpus.back() / kBitsPerWord) + 1);
  for (const int cpu : cpus) {
    words[static_cast<size_t>(cpu / kBitsPerWord)] |= uint32_t{1} << (cpu % kBitsPerWord);
  }
  std::string text = absl::StrFormat("%x", words.back());
  for (size_t i = words.size() - 1; i-- > 0;) text += absl::StrFormat(",%08x", words[i]);
  return text;
}

}  // namespace braid
