"""For tests of programs that make labs of their own: they end, and leave nothing behind."""
import os
import subprocess
import tempfile
import unittest

from lab import run


class ToolTest(unittest.TestCase):
    def start_tool(self, *command):
        process = subprocess.Popen(command, text=True, stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE, start_new_session=True)
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.stderr.close)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process

    def assert_nothing_is_left(self, process):
        self.assertNotIn(f"bt{process.pid}-", run("ip", "netns", "list").stdout)
        self.assertEqual([name for name in os.listdir(tempfile.gettempdir())
                          if name.startswith(f"bt{process.pid}-")], [])
