"""bench/bonding: rows by name, figures kept and shown again, nothing that outlives it."""
import json
import os
import signal
import tempfile

import natives
from lab import eventually, run
from tool_test import ToolTest

BONDING = os.path.join(natives.ROOT, "bench", "bonding")


class BondBench(ToolTest):
    beside_others = True

    def start(self, *options):
        return self.start_tool(BONDING, "--rounds", "1", "--seconds", "1", "--warm-up", "1",
                               "--build", natives.BUILD, *options)

    def test_a_run(self):
        with tempfile.TemporaryDirectory() as folder:
            kept = os.path.join(folder, "kept.json")
            process = self.start("udp-A", "--json", kept)
            shown, said = process.communicate(timeout=60)
            self.assertEqual(process.returncode, 0, said)
            with open(kept, encoding="utf-8") as file:
                samples = json.load(file)["samples"]
            self.assertAlmostEqual(samples["offered"]["udp-A"]["0"], 0.9, delta=0.05)
            self.assertIn("out of order", shown)
            self.assertEqual(run(BONDING, "--from", kept).stdout, shown)
        self.assert_nothing_is_left(process)

    def test_goes_on_with_what_was_kept(self):
        with tempfile.TemporaryDirectory() as folder:
            kept = os.path.join(folder, "kept.json")

            def samples_after(*options):
                process = self.start(*options, "--json", kept)
                _, said = process.communicate(timeout=60)
                self.assertEqual(process.returncode, 0, said)
                with open(kept, encoding="utf-8") as file:
                    return json.load(file)["samples"]["offered"]
            first = samples_after("udp-A")["udp-A"]["0"]
            both = samples_after("udp-A", "udp-F", "--rounds", "2", "--go-on")
            self.assertEqual({row: sorted(rounds) for row, rounds in both.items()},
                             {"udp-A": ["0", "1"], "udp-F": ["0", "1"]})
            self.assertEqual(both["udp-A"]["0"], first)
            process = self.start("udp-A", "--seconds", "2", "--go-on", "--json", kept)
            _, said = process.communicate(timeout=20)
            self.assertEqual(process.returncode, 1)
            self.assertIn("its seconds is 1, not 2", said)

    def test_interrupted(self):
        process = self.start("udp-A", "--seconds", "20")
        eventually(lambda: f"bt{process.pid}-link2" in run("ip", "netns", "list").stdout, 10,
                   "the links are there")
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)
        self.assertEqual(process.returncode, 128 + signal.SIGINT)
        self.assert_nothing_is_left(process)

    def test_an_unknown_row_is_named(self):
        process = self.start("Z-cubic")
        _, said = process.communicate(timeout=20)
        self.assertEqual(process.returncode, 2)
        self.assertIn("there is no row Z-cubic", said)
