// Lays out what `braid top` shows for a terminal of any size. Pure: lines of tinted text come out.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "cli/tint.h"
#include "cli/top_model.h"

namespace braid {

struct TopSpan {
  std::string text;
  Tint tint = Tint::kPlain;
  bool inverse = false;
};
using TopLine = std::vector<TopSpan>;

// What whoever looks has chosen.
struct TopView {
  TopSort sort = TopSort::kRate;
  std::string peer;  // whose paths are shown, by its key; one that is not there: the first
  bool paused = false;
  bool help = false;
  double interval_s = 1;
};

inline constexpr size_t kTopUnlimited = SIZE_MAX;  // as a height: all there is, and no list of keys

// At most `height` lines of at most `width` columns. Where there is no room for all, something of
// each section stays, columns that matter less go, and the peers scroll with the chosen one.
std::vector<TopLine> LayOutTop(const TopState& state, const TopView& view, size_t width,
                               size_t height);

// The key of the peer that stands `steps` further down (or up) the list than the chosen one.
std::string MovePeer(const TopState& state, const TopView& view, int steps);

// The text of a line, for what is no terminal.
std::string RenderLine(const TopLine& line, bool colour);

}  // namespace braid
