#include "cli/top_screen.h"

#include <curses.h>
#include <langinfo.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>

#include <cstring>
#include <string>
#include <utility>

namespace braid {
namespace {

constexpr int kEscapeDelayMs = 25;

// The other views write UTF-8 whatever the locale says, since terminals show it; ncurses does where
// the locale says so.
void SpeakUtf8() {
  setlocale(LC_CTYPE, "");
  if (strcmp(nl_langinfo(CODESET), "UTF-8") != 0) setlocale(LC_CTYPE, "C.UTF-8");
}

short PairOf(Tint tint) {
  switch (tint) {
    case Tint::kGood:
      return 1;
    case Tint::kFair:
      return 2;
    case Tint::kBad:
      return 3;
    default:
      return 0;
  }
}

bool StartColours() {
  if (!has_colors() || start_color() == ERR) return false;
  use_default_colors();
  init_pair(PairOf(Tint::kGood), COLOR_GREEN, -1);
  init_pair(PairOf(Tint::kFair), COLOR_YELLOW, -1);
  init_pair(PairOf(Tint::kBad), COLOR_RED, -1);
  return true;
}

attr_t AttributesOf(const TopSpan& span) {
  attr_t attributes = A_NORMAL;
  if (span.tint == Tint::kBold) attributes |= A_BOLD;
  if (span.tint == Tint::kDim) attributes |= A_DIM;
  if (span.inverse) attributes |= A_REVERSE;
  return attributes;
}

TopKey KeyOf(int key) {
  switch (key) {
    case 'q':
    case 'Q':
      return TopKey::kQuit;
    case 'p':
    case ' ':
      return TopKey::kPause;
    case 's':
      return TopKey::kSort;
    case 'k':
    case KEY_UP:
      return TopKey::kUp;
    case 'j':
    case KEY_DOWN:
      return TopKey::kDown;
    case KEY_PPAGE:
      return TopKey::kPageUp;
    case KEY_NPAGE:
      return TopKey::kPageDown;
    case KEY_HOME:
      return TopKey::kHome;
    case KEY_END:
      return TopKey::kEnd;
    case '?':
    case 'h':
      return TopKey::kHelp;
    case KEY_RESIZE:
      return TopKey::kResize;
    default:
      return TopKey::kNone;
  }
}

}  // namespace

absl::StatusOr<TopScreen> TopScreen::Open(bool colour) {
  SpeakUtf8();
  // initscr() would end the program where it does not know the terminal.
  if (newterm(nullptr, stdout, stdin) == nullptr) {
    const char* terminal = getenv("TERM");
    return absl::FailedPreconditionError(
        std::string("this terminal cannot be drawn on (TERM is \"") +
        (terminal == nullptr ? "" : terminal) + "\"); \"braid top --once\" prints what it shows");
  }
  TopScreen screen;
  screen.colour_ = colour && StartColours();
  cbreak();
  noecho();
  curs_set(0);
  keypad(stdscr, TRUE);
  nodelay(stdscr, TRUE);
  set_escdelay(kEscapeDelayMs);
  return screen;
}

TopScreen::TopScreen(TopScreen&& other) noexcept
    : open_(std::exchange(other.open_, false)), colour_(other.colour_) {}

TopScreen::~TopScreen() {
  if (open_) endwin();
}

size_t TopScreen::width() const { return static_cast<size_t>(std::max(1, getmaxx(stdscr))); }
size_t TopScreen::height() const { return static_cast<size_t>(std::max(1, getmaxy(stdscr))); }

void TopScreen::Draw(const std::vector<TopLine>& lines) {
  erase();
  for (size_t i = 0; i < lines.size() && i < height(); ++i) {
    move(static_cast<int>(i), 0);
    for (const TopSpan& span : lines[i]) {
      attr_set(AttributesOf(span), colour_ ? PairOf(span.tint) : short{0}, nullptr);
      addnstr(span.text.data(), static_cast<int>(span.text.size()));
    }
  }
  attr_set(A_NORMAL, 0, nullptr);
  refresh();
}

TopKey TopScreen::Key() {
  const int key = getch();
  return key == ERR ? TopKey::kNone : KeyOf(key);
}

}  // namespace braid
