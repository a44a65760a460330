"""What a long run shows of itself: one live line on a terminal, else a line now and then."""
import sys
import time

PLAIN_LINE_SECONDS = 30


class Progress:
    """`total_seconds` is what the measurements should take; each step says its share."""

    def __init__(self, total_seconds):
        self.total = max(total_seconds, 0.001)
        self.done = 0
        self.start = time.monotonic()
        self.live = sys.stderr.isatty()
        self._shown_at = 0

    def step(self, what, seconds):
        """Call it ahead of each measurement, with what it should take."""
        text = f"{self.done / self.total:4.0%}  {what}{self._left()}"
        now = time.monotonic()
        if self.live:
            sys.stderr.write(f"\r\033[K{text}")
        elif now - self._shown_at >= PLAIN_LINE_SECONDS:
            sys.stderr.write(text + "\n")
            self._shown_at = now
        sys.stderr.flush()
        self.done += seconds

    def say(self, text):
        """A line that stays."""
        sys.stderr.write(("\r\033[K" if self.live else "") + text + "\n")
        sys.stderr.flush()

    def end(self):
        if self.live:
            sys.stderr.write("\r\033[K")
            sys.stderr.flush()

    def _left(self):
        """By how the measurements so far took longer than they should."""
        elapsed = time.monotonic() - self.start
        slower = elapsed / self.done if self.done > 0.02 * self.total else 1
        seconds = (self.total - self.done) * slower
        if seconds < 90:
            return f", about {seconds:.0f} s left"
        return f", about {seconds / 60:.0f} min left"
