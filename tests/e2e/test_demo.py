"""tools/demo's program: it shows what it promises, and leaves nothing behind."""
import os
import re
import signal
import subprocess
import sys
import time

from lab import run
from lab_test import LabTest

DEMO = os.path.join(os.path.dirname(os.path.abspath(__file__)), "demo.py")


def namespaces_of(pid):
    return [name for name in run("ip", "netns", "list").stdout.split() if f"{pid}-" in name]


class Demo(LabTest):
    def start(self, *options):
        process = subprocess.Popen([sys.executable, DEMO, *options], stdout=subprocess.PIPE,
                                   stderr=subprocess.STDOUT, text=True)
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.kill)
        return process

    def test_a_bond_loses_a_link_and_gets_it_back(self):
        demo = self.start("--seconds", "4")
        text, _ = demo.communicate(timeout=90)
        self.assertEqual(demo.returncode, 0, text)
        self.assertIn("fibre down", text, "while it is cut")
        figures = {what: float(value) for what, value in
                   re.findall(r"^ +([a-z][^\d]*?) +([\d.]+) (?:Mbit/s|ms|s)\b", text, re.M)}
        self.assertGreater(figures["one TCP flow over both"], 50, text)
        self.assertGreater(figures["while the first is cut"], 8, text)
        self.assertLess(figures["the flow was still for"], 2000)
        self.assertEqual(namespaces_of(demo.pid), [])

    def test_it_leaves_nothing_behind_when_it_is_interrupted(self):
        demo = self.start()
        for line in demo.stdout:
            if "Mbit/s" in line and "flow" in line:
                break
        self.assertNotEqual(namespaces_of(demo.pid), [])
        demo.send_signal(signal.SIGINT)
        demo.communicate(timeout=20)
        self.assertNotEqual(demo.returncode, 0)
        for _ in range(50):
            if not namespaces_of(demo.pid):
                break
            time.sleep(0.1)
        self.assertEqual(namespaces_of(demo.pid), [])
