"""What a bond of two unequal links does while one TCP flow fills it and a link fails.

              ┌─ fibre  50 Mbit/s, 10 ms ─┐
    client  ══╡                           ╞══  server
              └─ lte    20 Mbit/s, 30 ms ─┘
"""
import contextlib
import os
import shutil
import statistics
import sys
import time

import lab as labs
from bond import Bond
from tcp_stream import in_background, longest_gap_ms, Stream
from terminal import COLOURS, headline, note, tinted
from traffic import Pinger

NAMES = ("fibre", "lte")
LINKS = ({"rate_mbps": 50, "delay_ms": 10, "queue_kb": 256},
         {"rate_mbps": 20, "delay_ms": 30, "queue_kb": 256})
PORT = 5170
FRAMES_PER_S = 8
SHOWN_OVER_S = 0.5  # rates are of so long
LINES_PER_S = 1  # where nothing can be drawn over
BACK_SHARE = 0.5  # of its rate: then a link carries again


class Rates:
    """Mbit/s of each link and of the flow, over the last moments."""

    def __init__(self, bond, flow):
        self.bond, self.flow = bond, flow
        self.samples = []

    def look(self):
        self.samples.append((time.monotonic(), [*self.bond.sent_over(), self.flow.received]))
        while self.samples[-1][0] - self.samples[0][0] > SHOWN_OVER_S + 0.2:
            self.samples.pop(0)

    def mbps(self):
        (then, before), (now, after) = self.samples[0], self.samples[-1]
        if now == then:
            return [0.0] * len(after)
        return [(b - a) * 8 / 1e6 / (now - then) for a, b in zip(before, after)]


class View:
    """The links and their sum as bars, drawn over the last ones where a terminal allows it."""

    BARS = "▏▎▍▌▋▊▉█"

    def __init__(self):
        self.drawn_lines = 0
        self.next_line_at = 0.0
        self.live = COLOURS and os.environ.get("TERM") not in (None, "")

    def bar(self, mbps, most_mbps, width):
        eighths = round(min(mbps / most_mbps, 1) * width * 8)
        bar = "█" * (eighths // 8) + (self.BARS[eighths % 8 - 1] if eighths % 8 else "")
        return bar.ljust(width)

    def show(self, seconds, rates, down, what):
        if not self.live:
            if time.monotonic() < self.next_line_at:
                return
            self.next_line_at = time.monotonic() + 1 / LINES_PER_S
            links = "   ".join(f"{name} {'down ' if gone else f'{mbps:5.1f}'}"
                               for name, mbps, gone in zip(NAMES, rates, down))
            print(f"   {seconds:4.0f} s   {links}   flow {rates[-1]:5.1f} Mbit/s   {what}",
                  flush=True)
            return
        width = max(10, min(60, shutil.get_terminal_size().columns - 34))
        most = sum(link["rate_mbps"] for link in LINKS)
        lines = []
        for name, mbps, gone, colour in zip(NAMES, rates, down, ("34", "35")):
            value = tinted("1;31", "   down") if gone else f"{mbps:7.1f}"
            lines.append(f"   {name:6}{value} Mbit/s  {tinted(colour, self.bar(mbps, most, width))}")
        lines.append(f"   {'flow':6}{tinted(1, f'{rates[-1]:7.1f}')} Mbit/s  "
                     f"{tinted('32', self.bar(rates[-1], most, width))}")
        lines.append(f"   {seconds:4.1f} s  {what}")
        up = f"\x1b[{self.drawn_lines}A" if self.drawn_lines else ""
        sys.stdout.write(up + "".join(f"\x1b[2K{line}\n" for line in lines))
        sys.stdout.flush()
        self.drawn_lines = len(lines)

    def keep(self):
        """What is drawn stays; the next picture comes below it."""
        self.drawn_lines = 0


class Story:
    """What happens, and what came of it."""

    def __init__(self, bond, flow, seconds):
        self.bond = bond
        self.phase_s = seconds
        self.flow = flow
        self.rates = Rates(bond, self.flow)
        self.view = View()
        self.began_at = time.monotonic()
        self.down = [False] * len(LINKS)

    def _frames(self, what):
        """Shows how it goes on, for a phase."""
        began_at = time.monotonic()
        while (now := time.monotonic()) < began_at + self.phase_s:
            self.rates.look()
            self.view.show(now - self.began_at, self.rates.mbps(), self.down, what)
            yield now - began_at
            time.sleep(1 / FRAMES_PER_S)

    def phase(self, what):
        """The mean rate of the flow in its last half, in Mbit/s."""
        middle = None
        for seconds in self._frames(what):
            if middle is None and seconds >= self.phase_s / 2:
                middle = time.monotonic(), self.flow.received
        then, before = middle
        return (self.flow.received - before) * 8 / 1e6 / (time.monotonic() - then)

    def wait(self, what, until):
        """After how long it is so, in seconds."""
        for seconds in self._frames(what):
            if until():
                return seconds
        raise labs.LabError(f"{what}, but it is not used again")

    def set_down(self, link, down):
        (self.bond.links[link].down if down else self.bond.links[link].up)()
        self.down[link] = down

    def run(self):
        table = []
        pinger = Pinger(self.bond.tunnel.client_ns, "10.77.0.1", interval=0.1)
        try:
            self.phase("one TCP flow finds both links")
            both = self.phase("one TCP flow over both links")
            self.set_down(0, True)
            cut_at = time.monotonic()
            alone = self.phase(f"{NAMES[0]} is cut, and nobody has told braid")
            pause_ms = longest_gap_ms(self.flow.arrived_at, cut_at, time.monotonic())
            self.set_down(0, False)
            carried = self.bond.sent_over()[0]
            enough = BACK_SHARE * LINKS[0]["rate_mbps"] * 1e6 / 8 * SHOWN_OVER_S
            back_s = self.wait(f"{NAMES[0]} is whole again",
                               lambda: self.bond.sent_over()[0] - carried > enough)
            again = self.phase("and carries again")
        finally:
            pings = pinger.stop()
        if not pings.times_ms:
            raise labs.LabError("no ping was answered:\n" + pings.text)
        for link, name in zip(LINKS, NAMES):
            table.append((f"{name} can carry", f"{link['rate_mbps']:.0f} Mbit/s", ""))
        table += [
            ("one TCP flow over both", f"{both:.1f} Mbit/s", "headers and tags are the rest"),
            ("  while the first is cut", f"{alone:.1f} Mbit/s", ""),
            ("  after that", f"{again:.1f} Mbit/s", ""),
            ("the flow was still for", f"{pause_ms:.0f} ms", "when the link was cut"),
            ("the link was used again after", f"{back_s:.1f} s", ""),
            ("ping beside all that, median", f"{statistics.median(pings.times_ms):.0f} ms",
             f"{2 * LINKS[0]['delay_ms']} ms is the first link's own"),
        ]
        if alone <= 0:
            raise labs.LabError("the flow did not survive the fault")
        if both <= LINKS[0]["rate_mbps"]:
            raise labs.LabError(f"two links carried {both:.1f} Mbit/s, no more than the first alone")
        return table


def show_table(table):
    for what, value, remark in table:
        print(f"   {what:32}{tinted('1;32', f'{value:>14}')}   {tinted(2, remark)}")


def run(lab, seconds, both=None):
    """`seconds`: of each of the phases. Returns what went wrong in the daemons."""
    headline("two links, one tunnel")
    note(__doc__.split("\n\n", 1)[1].rstrip())
    bond = Bond(lab, *LINKS, guarded=False, both=both, names=NAMES)
    print()
    tunnel = bond.tunnel
    with contextlib.closing(Stream(tunnel.server_ns, tunnel.client_ns, "10.77.0.1", PORT)) as flow, \
            in_background(flow.send, flow.receive):
        table = Story(bond, flow, seconds).run()
    headline("what the client says of itself")
    print(bond.client.shown_status())
    headline("what was seen")
    show_table(table)
    return bond.client.stop() + bond.server.stop()
