#!/usr/bin/python3
"""Runs the end-to-end tests: run.py [PART OF A NAME…]

One line for each test while it goes on, what failed behind it, and "N passed, N failed" last.
"""
import os
import sys
import time
import unittest

sys.dont_write_bytecode = True
FOLDER = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, FOLDER)

import lab  # noqa: E402

COLOURS = sys.stdout.isatty() and "NO_COLOR" not in os.environ


def tinted(code, text):
    return f"\x1b[{code}m{text}\x1b[0m" if COLOURS else text


class Lines(unittest.TestResult):
    """A line for each test."""

    def __init__(self, total):
        super().__init__()
        self.total = total
        self.passed = 0
        self.bad = []
        self._started = 0.0
        self._failed_now = False

    def startTest(self, test):
        super().startTest(test)
        self._started = time.monotonic()
        self._failed_now = False
        name = test.id()
        sys.stdout.write(f"[{self.testsRun:3}/{self.total}] {name:<74} ")
        sys.stdout.flush()

    def _end(self, code, word):
        sys.stdout.write(f"{tinted(code, word)} {time.monotonic() - self._started:5.1f} s\n")
        sys.stdout.flush()

    def stopTest(self, test):
        if self._failed_now:
            self.bad.append(test.id())
        elif not any(test is one for one, _ in self.skipped):
            self.passed += 1
            self._end(32, "ok    ")
        super().stopTest(test)

    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        self._end(33, "skip  ")
        sys.stdout.write(f"          {reason}\n")

    def _note(self, recorded):
        if not self._failed_now:
            self._end(31, "FAILED")
        self._failed_now = True
        sys.stdout.write(recorded[-1][1])
        sys.stdout.flush()

    def addFailure(self, test, err):
        super().addFailure(test, err)
        self._note(self.failures)

    def addError(self, test, err):
        super().addError(test, err)
        self._note(self.errors)

    def addSubTest(self, test, subtest, err):
        super().addSubTest(test, subtest, err)
        if err is not None:
            sys.stdout.write(f"\n          in {subtest._subDescription()}: ")
            failure = issubclass(err[0], test.failureException)
            self._note(self.failures if failure else self.errors)


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
    result = Lines(len(chosen))
    started = time.monotonic()
    unittest.TestSuite(chosen).run(result)
    print(f"took {time.monotonic() - started:.0f} s, {len(result.skipped)} skipped")
    for name in result.bad:
        print(f"failed: {name}")
    print(f"{result.passed} passed, {len(result.bad)} failed")
    return 1 if result.bad or not result.passed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
