// The terminal of `braid top`: lines drawn with ncurses, and keys.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cli/top_layout.h"

namespace braid {

enum class TopKey : uint8_t {
  kNone,
  kQuit,
  kPause,
  kSort,
  kUp,
  kDown,
  kPageUp,
  kPageDown,
  kHome,
  kEnd,
  kHelp,
  kResize,
};

// One at a time, on one thread. The terminal is as it was before when the object is gone; while the
// program is stopped (Ctrl-Z), too.
class TopScreen {
 public:
  // `colour`: if the terminal has colours.
  static absl::StatusOr<TopScreen> Open(bool colour);
  TopScreen(TopScreen&& other) noexcept;
  TopScreen& operator=(TopScreen&&) = delete;
  ~TopScreen();

  size_t width() const;
  size_t height() const;
  void Draw(const std::vector<TopLine>& lines);
  // kNone: no key waits.
  TopKey Key();

 private:
  TopScreen() = default;

  bool open_ = true;
  bool colour_ = false;
};

}  // namespace braid
