#!/usr/bin/python3
"""Runs the end-to-end tests: run.py [PART OF A NAME…]

One line for each test once it has ended, what failed behind it, and "N passed, N failed" last.
"""
import io
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import time
import unittest

sys.dont_write_bytecode = True
FOLDER = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, FOLDER)

import lab  # noqa: E402
from terminal import COLOURS, tinted  # noqa: E402

FORK = multiprocessing.get_context("fork")
ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Outcome(unittest.TestResult):
    """Of one test: what it is called, and what is to be said about it."""

    def __init__(self):
        super().__init__()
        self.word = tinted(32, "ok    ")
        self.counts = "passed"
        self.text = ""

    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        self.word, self.counts = tinted(33, "skip  "), "skipped"
        self.text += f"          {reason}\n"

    def _note(self, recorded, where=""):
        self.word, self.counts = tinted(31, "FAILED"), "failed"
        self.text += where + recorded[-1][1]

    def addFailure(self, test, err):
        super().addFailure(test, err)
        self._note(self.failures)

    def addError(self, test, err):
        super().addError(test, err)
        self._note(self.errors)

    def addSubTest(self, test, subtest, err):
        super().addSubTest(test, subtest, err)
        if err is not None:
            failure = issubclass(err[0], test.failureException)
            self._note(self.failures if failure else self.errors,
                       f"          in {subtest._subDescription()}: ")


class Child:
    """A test in a process of its own, so that several run beside each other and none harms another."""

    def __init__(self, test):
        self.name = test.id()
        self.started = time.monotonic()
        self.result, theirs = multiprocessing.Pipe(duplex=False)
        self.process = FORK.Process(target=self._run, args=(test, theirs))
        self.process.start()
        theirs.close()

    @staticmethod
    def _run(test, result):
        for number in ENDING_SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        outcome = Outcome()
        sys.stderr = said = io.StringIO()
        test.run(outcome)
        sys.stderr = sys.__stderr__
        result.send((outcome.counts, outcome.word, outcome.text + said.getvalue()))

    def outcome(self):
        """Waits for it: what it counts as, a word for it, and what else it has to say."""
        try:
            told = self.result.recv()
        except EOFError:
            told = None
        self.process.join()
        if told is None:
            told = "failed", tinted(31, "FAILED"), f"it ended with {self.process.exitcode}\n"
        return told


class Run:
    """All tests: those that measure alone, those that mostly wait beside each other."""

    def __init__(self, tests):
        self.tests = tests
        self.ended = 0
        self.names = {"passed": [], "failed": [], "skipped": []}
        self.children = []

    def run(self):
        for number in ENDING_SIGNALS:
            signal.signal(number, self._end)
        beside = [test for test in self.tests if getattr(test, "beside_others", False)]
        alone = [test for test in self.tests if test not in beside]
        self._run(beside, os.cpu_count() + 1)
        self._run(alone, 1)

    def _run(self, tests, at_once):
        waiting = list(reversed(tests))
        while waiting or self.children:
            while waiting and len(self.children) < at_once:
                self.children.append(Child(waiting.pop()))
            if at_once == 1 and COLOURS:
                sys.stdout.write(f"{self.children[0].name}\r")
                sys.stdout.flush()
            ready = multiprocessing.connection.wait([child.result for child in self.children])
            for child in [child for child in self.children if child.result in ready]:
                self._show(child, *child.outcome())
                self.children.remove(child)

    def _show(self, child, counts, word, text):
        self.ended += 1
        self.names[counts].append(child.name)
        sys.stdout.write(f"[{self.ended:3}/{len(self.tests)}] {child.name:<74} {word} "
                         f"{time.monotonic() - child.started:5.1f} s\n{text}")
        sys.stdout.flush()

    def _end(self, number, _frame):
        for ending in ENDING_SIGNALS:
            signal.signal(ending, signal.SIG_IGN)
        for child in self.children:
            child.process.terminate()
        for child in self.children:
            child.process.join()
        os._exit(128 + number)


def tests_of(suite):
    for item in suite:
        if isinstance(item, unittest.TestSuite):
            yield from tests_of(item)
        else:
            yield item


def main(filters):
    lab.require_root()
    found = unittest.TestLoader().discover(FOLDER, pattern="test_*.py", top_level_dir=FOLDER)
    chosen = [test for test in tests_of(found)
              if not filters or any(part in test.id() for part in filters)]
    run = Run(chosen)
    started = time.monotonic()
    run.run()
    passed, failed, skipped = (run.names[each] for each in ("passed", "failed", "skipped"))
    print(f"took {time.monotonic() - started:.0f} s, {len(skipped)} skipped")
    for name in failed:
        print(f"failed: {name}")
    print(f"{len(passed)} passed, {len(failed)} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
