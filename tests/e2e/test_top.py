"""braid top on terminals of several sizes: what it shows, that it goes on, and that it leaves the
terminal as it was.

    client ──veth── server
"""
import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios

import natives
from lab import eventually, run
from lab_test import LabTest, each
from topology import INNER, Tunnel


class Screen:
    """A terminal with a program on it: what it wrote, and what stands on it by now.

    As much of a terminal as ncurses needs under TERM=linux: moving, erasing, text.
    """

    def __init__(self, test, columns, rows, *command, environment=None):
        self.columns, self.rows = columns, rows
        self.fd, theirs = pty.openpty()
        test.addCleanup(os.close, self.fd)
        self.resize(columns, rows)
        self.before = termios.tcgetattr(theirs)
        self.theirs = theirs
        test.addCleanup(os.close, theirs)
        self.written = ""
        # It leads a session with this terminal, so that a change of size is told to it.
        self.process = subprocess.Popen(
            ["setsid", "--ctty", "--wait", *command], stdin=theirs, stdout=theirs,
            stderr=subprocess.PIPE, env={**os.environ, "TERM": "linux", **(environment or {})})
        test.addCleanup(self.process.stderr.close)
        test.addCleanup(self._end)

    def _end(self):
        if self.process.poll() is None:
            for pid in self.pids():
                os.kill(pid, signal.SIGKILL)
            self.process.wait()

    def pids(self):
        children = run("ps", "-o", "pid=", "--ppid", self.process.pid, check=False).stdout.split()
        return [int(pid) for pid in children] or [self.process.pid]

    def resize(self, columns, rows):
        self.columns, self.rows = columns, rows
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def key(self, text):
        os.write(self.fd, text.encode())

    def read(self):
        while select.select([self.fd], [], [], 0)[0]:
            with contextlib.suppress(OSError):
                self.written += os.read(self.fd, 65536).decode(errors="replace")
                continue
            break
        return self.written

    def shown(self):
        """The lines that stand on the screen."""
        cells = [[" "] * self.columns for _ in range(self.rows)]
        row = column = 0
        last = " "
        for match in re.finditer(r"\x1b\[([?\d;]*)([A-Za-z@`])|\x1b[()][A-Z0-9]|\x1b.|(.)",
                                 self.read(), re.DOTALL):
            numbers = [int(each) for each in re.findall(r"\d+", match[1] or "")]
            first = numbers[0] if numbers else 1
            action, text = match[2], match[3]
            if action in ("H", "f"):
                row, column = first - 1, (numbers[1] if len(numbers) > 1 else 1) - 1
            elif action == "d":
                row = first - 1
            elif action in ("G", "`"):
                column = first - 1
            elif action and action in "ABCD":
                row += {"A": -first, "B": first}.get(action, 0)
                column += {"C": first, "D": -first}.get(action, 0)
            elif action == "J":
                for y in range(row if not numbers else 0, self.rows):
                    cells[y][column if y == row and not numbers else 0:] = \
                        [" "] * (self.columns - (column if y == row and not numbers else 0))
            elif action == "K":
                start, end = (0, column + 1) if numbers == [1] else (column, self.columns)
                cells[row][start:end] = [" "] * (end - start)
            elif action == "X":
                cells[row][column:column + first] = [" "] * min(first, self.columns - column)
            elif action == "P":
                cells[row][column:column + first] = []
                cells[row] += [" "] * (self.columns - len(cells[row]))
            elif action == "@":
                cells[row][column:column] = [" "] * first
                del cells[row][self.columns:]
            elif action == "b":
                for _ in range(first):
                    if column < self.columns:
                        cells[row][column] = last
                        column += 1
            elif text == "\r":
                column = 0
            elif text == "\n":
                row = min(row + 1, self.rows - 1)
            elif text == "\b":
                column -= 1
            elif text and text >= " ":
                if row < self.rows and column < self.columns:
                    cells[row][column] = last = text
                column += 1
        return ["".join(line).rstrip() for line in cells]

    def wait_for(self, text, seconds=20):
        try:
            eventually(lambda: any(text in line for line in self.shown()), seconds, text)
        except AssertionError as error:
            raise AssertionError(f"{error}; shown:\n" + "\n".join(self.shown())) from None

    def assert_ends(self, test, code):
        def has_ended():
            self.read()  # what a terminal does not take keeps its program waiting
            return self.process.poll() is not None
        eventually(has_ended, 20, "it ends")
        test.assertEqual(self.process.returncode, code)
        self.read()
        # Echo, lines, the cursor: all as before.
        test.assertEqual(termios.tcgetattr(self.theirs), self.before)
        test.assertGreater(self.written.rfind("\x1b[?25h"), self.written.rfind("\x1b[?25l"))


class Top(LabTest):
    beside_others = True

    def tunnel(self):
        return Tunnel(self.lab, client={"tunnel": {"paths": [
            {"name": "fibre", "address": "10.20.1.1"},
            {"name": "six", "address": "fd20:1::1", "endpoint": "[fd20:1::2]:7700"}]}})

    def screen(self, daemon, columns, rows, *options, environment=None):
        return Screen(self, columns, rows, natives.braid(), "top", "--socket", daemon.socket_path,
                      "--interval", "0.2", *options, environment=environment)

    @each(size=((80, 24), (40, 10), (200, 60)))
    def test_it_shows_the_paths_on(self, size):
        client = self.tunnel().start().client
        screen = self.screen(client, *size)
        for text in ("braid running", "paths of hub", "fibre", "six", "q quit"):
            screen.wait_for(text)
        screen.key("q")
        screen.assert_ends(self, 0)

    def test_rates_are_of_now(self):
        tunnel = self.tunnel().start()
        screen = self.screen(tunnel.client, 100, 30)
        screen.wait_for("paths of hub")
        # 500 a second, of 1,300 bytes and more: some 5 Mbit/s each way, or what the machine has
        # time for.
        tunnel.client_ns.start("pinger", "ping", "-q", "-i", "0.002", "-s", 1300, INNER[4][1])
        for line in 1, 2:
            eventually(lambda n=line: re.search(r" [1-9][\d.]* Mbit/s", screen.shown()[n]), 20,
                       "a rate of now")

    def test_keys(self):
        screen = self.screen(self.tunnel().start().client, 80, 24)
        screen.wait_for("sort: rate")
        screen.key("s")
        screen.wait_for("sort: bytes")
        screen.key("p")
        screen.wait_for("paused")
        screen.key("p")
        screen.wait_for("every 0.2 s")
        screen.key("?")
        screen.wait_for("keys, and what is shown")
        screen.key("\x1b[B?")  # an arrow, and back
        screen.wait_for("paths of hub")

    def test_it_follows_the_size_of_its_window(self):
        screen = self.screen(self.tunnel().start().client, 80, 24)
        screen.wait_for("q quit")
        self.assertIn("q quit", screen.shown()[23])
        screen.resize(60, 14)
        eventually(lambda: "q quit" in screen.shown()[13], 20, "the last line is the fourteenth")

    @each(number=(signal.SIGTERM, signal.SIGINT, signal.SIGHUP))
    def test_the_terminal_is_restored_after_signal(self, number):
        screen = self.screen(self.tunnel().start().client, 80, 24)
        screen.wait_for("q quit")
        for pid in screen.pids():
            os.kill(pid, number)
        screen.assert_ends(self, 0)

    def test_a_daemon_that_goes_and_comes_back(self):
        tunnel = self.tunnel().start()
        screen = self.screen(tunnel.client, 80, 24)
        screen.wait_for("braid running")
        self.assertEqual(tunnel.client.stop(), [])
        screen.wait_for("no answer, trying again")
        tunnel.client.start()
        screen.wait_for("braid running")
        screen.key("q")
        screen.assert_ends(self, 0)

    def test_no_colours_where_they_are_not_wanted(self):
        client = self.tunnel().start().client
        for environment, coloured in (({}, True), ({"NO_COLOR": "1"}, False),
                                      ({"TERM": "vt100"}, False)):
            screen = self.screen(client, 80, 24, environment=environment)
            eventually(lambda: "sort" in screen.read(), 20, "it draws")
            self.assertEqual("\x1b[32m" in screen.read(), coloured, environment)

    def test_once_is_text(self):
        tunnel = self.tunnel().start()
        done = run(natives.braid(), "top", "--once", "--interval", "0.2", "--socket",
                   tunnel.client.socket_path)
        for text in ("braid running  client  braid0", "paths of hub", "fibre", "peers 1, 1 up"):
            self.assertIn(text, done.stdout)
        self.assertNotIn("\x1b", done.stdout)
        self.assertLessEqual(max(map(len, done.stdout.splitlines())), 80)

    def test_what_is_no_terminal_is_told(self):
        for arguments, said in (([], "--once"), (["--once"], "braid.sock")):
            done = run(natives.braid(), "top", "--socket", "/nonexistent/braid.sock", *arguments,
                       check=False)
            self.assertEqual(done.returncode, 1)
            self.assertEqual(done.stderr.count("\n"), 1)
            self.assertIn(said, done.stderr)
        screen = Screen(self, 80, 24, natives.braid(), "top", environment={"TERM": "nonsense"})
        eventually(lambda: screen.process.poll() is not None, 20, "it ends")
        self.assertEqual(screen.process.returncode, 1)
        self.assertIn(b"--once", screen.process.stderr.read())
