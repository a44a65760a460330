#include "cli/text_layout.h"

#include <algorithm>

namespace braid {
namespace {

bool StartsCodePoint(char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; }

}  // namespace

size_t Width(std::string_view text) {
  return static_cast<size_t>(std::count_if(text.begin(), text.end(), StartsCodePoint));
}

std::string Fit(std::string text, size_t width) {
  if (Width(text) <= width) return text;
  size_t at = 0;
  for (size_t seen = 0; at < text.size(); ++at) {
    if (StartsCodePoint(text[at]) && seen++ == width - 1) break;
  }
  return text.substr(0, at) + "…";
}

std::string PadRight(std::string text, size_t width) {
  const size_t used = Width(text);
  return used < width ? text.append(width - used, ' ') : text;
}

std::string PadLeft(const std::string& text, size_t width) {
  const size_t used = Width(text);
  return used < width ? std::string(width - used, ' ') + text : text;
}

std::string Printable(std::string text) {
  for (char& c : text) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = '?';
  }
  return text;
}

std::string Join(const std::vector<std::string>& parts, std::string_view separator) {
  std::string out;
  for (const auto& part : parts) {
    if (part.empty()) continue;
    if (!out.empty()) out += separator;
    out += part;
  }
  return out;
}

std::string Wrap(std::string_view first, std::string_view indent, std::string_view text) {
  std::string out(first);
  size_t column = Width(first);
  bool at_start = true;
  while (!text.empty()) {
    const size_t space = text.find(' ');
    std::string word(text.substr(0, space));
    text.remove_prefix(space == text.npos ? text.size() : space + 1);
    if (word.empty()) continue;
    word = Fit(std::move(word), kColumns - Width(indent));
    if (!at_start && column + 1 + Width(word) > kColumns) {
      out.append("\n").append(indent);
      column = Width(indent);
      at_start = true;
    }
    if (!at_start) out += ' ';
    column += Width(word) + (at_start ? 0 : 1);
    out += word;
    at_start = false;
  }
  return out += '\n';
}

}  // namespace braid
