"""bench/compare: peers by plug-in, failures that do not stop it, nothing that outlives it."""
import json
import os
import signal
import tempfile

from lab import eventually, run
import natives
from tool_test import ToolTest

COMPARE = os.path.join(natives.ROOT, "bench", "compare")

# A "tunnel" that only gives the link more addresses; its child does not end when it is asked to.
DIRECT = r"""#!/bin/bash
case $1 in
  version) echo "direct 1" ;;
  prepare) echo made > "$PEER_FOLDER/key" ;;
  run)
    [[ -f $PEER_FOLDER/key && $PEER_DEVICE == tun0 ]] || exit 3
    device=$(ip -o address show to "$PEER_OUTER_LOCAL" | cut -d' ' -f2)
    ip address add "$PEER_INNER_LOCAL/24" dev "$device"
    (trap '' TERM INT HUP; echo $BASHPID > "@PIDS@/$PEER_SIDE"; while :; do sleep 1; done) &
    exec sleep 1000 ;;
esac
"""
BROKEN = """#!/bin/sh
[ "$1" != run ] || { echo "no luck today" >&2; exit 5; }
echo "broken 1"
"""
MISSING = """#!/bin/sh
echo "apt install missing"
exit 1
"""


class Compare(ToolTest):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.peers, self.pids = (os.path.join(self.folder.name, name) for name in ("peers", "pids"))
        for folder in (self.peers, self.pids):
            os.mkdir(folder)
        for name, text in (("direct", DIRECT.replace("@PIDS@", self.pids)), ("broken", BROKEN),
                           ("missing", MISSING)):
            path = os.path.join(self.peers, name)
            with open(os.open(path, os.O_WRONLY | os.O_CREAT, 0o700), "w",
                      encoding="ascii") as file:
                file.write(text)

    def start(self, *options):
        return self.start_tool(COMPARE, "--peers-from", self.peers, "--rounds", "1", "--seconds",
                               "1", *options)

    def peer_pids(self):
        """Of the children, once both sides have started."""
        found = []
        for name in sorted(os.listdir(self.pids)):
            with open(os.path.join(self.pids, name), encoding="ascii") as file:
                found += [int(pid) for pid in file.read().split()]
        return found if len(found) == 2 else []

    def assert_nothing_is_left(self, process):
        super().assert_nothing_is_left(process)
        pids = self.peer_pids()
        self.assertEqual(len(pids), 2)
        eventually(lambda: not [pid for pid in pids if os.path.exists(f"/proc/{pid}")], 5,
                   "the peer's processes are gone")

    def test_a_run(self):
        kept = os.path.join(self.folder.name, "kept.json")
        braids = ["aes-256-gcm", "aes-256-gcm 1-worker", "aes-256-gcm epoll", "aes-256-gcm@same"]
        process = self.start(
            "--only", ",".join(("no tunnel", *braids, "direct", "broken", "missing")),
            "--braid", f"same={natives.braid()}", "--cases", "rr,memory", "--json", kept)
        shown, said = process.communicate(timeout=120)
        self.assertEqual(process.returncode, 0, said)
        self.assertIn("missing is skipped, since it is not installed: apt install missing", said)
        with open(kept, encoding="utf-8") as file:
            results = json.load(file)
        measured = [*braids, "direct"]
        self.assertEqual(sorted(results["samples"]["rr"]), measured + ["no tunnel"])
        self.assertEqual(sorted(results["samples"]["memory"]), measured)
        self.assertIn("no luck today", results["failures"]["rr"]["broken"][0])
        self.assertIn("failed: did not start", shown)
        again = run(COMPARE, "--from", kept)
        self.assertEqual(again.stdout, shown)
        self.assert_nothing_is_left(process)

    def test_interrupted(self):
        process = self.start("--only", "direct", "--cases", "tcp_up", "--seconds", "20")
        eventually(self.peer_pids, 10, "both sides of the peer run")
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)
        self.assertEqual(process.returncode, 128 + signal.SIGINT)
        self.assert_nothing_is_left(process)

    def test_wrong_choices_are_named(self):
        for options, what in ((("--cases", "tcp_sideways"), "there is no tcp_sideways"),
                              (("--only", "gre*"), "no contender is called gre*"),
                              (("--braid", "new=/nowhere"), "--braid new=/nowhere"),
                              (("--peers-from", "/nowhere"), "--peers-from: /nowhere")):
            process = self.start(*options)
            _, said = process.communicate(timeout=20)
            self.assertEqual(process.returncode, 2)
            self.assertIn(what, said)
