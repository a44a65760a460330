"""What every test begins with: a lab of its own, whose daemons must end well."""
import sys
import unittest

from lab import Lab


def each(**choices):
    """Makes one test of each value: @each(io=("io_uring", "epoll")) def test_x(self, io)."""
    (name, values), = choices.items()

    def decorate(method):
        cases = getattr(method, "cases", [({}, "")])
        method.cases = [({**known, name: value}, f"{suffix}_{_label(name, value)}")
                        for known, suffix in cases for value in values]
        return method
    return decorate


def _label(name, value):
    if isinstance(value, tuple):
        return "_".join(str(part) for part in value if part != "")
    return f"{name}{value}" if isinstance(value, int) else str(value)


class LabTest(unittest.TestCase):
    # Whether others may run meanwhile: it mostly waits, and asks for no rate or time that they would
    # change.
    beside_others = False

    def __init_subclass__(cls, **options):
        super().__init_subclass__(**options)
        for name, method in list(vars(cls).items()):
            if not hasattr(method, "cases"):
                continue
            delattr(cls, name)
            for arguments, suffix in method.cases:
                setattr(cls, name + suffix, _bound(method, arguments))

    def setUp(self):
        self.lab = Lab()
        self.logs = ""
        self.addCleanup(self._close_lab)

    def _close_lab(self):
        wrong = []
        try:
            for daemon in reversed(self.lab.daemons):
                wrong += daemon.stop()
            self.logs = "".join(
                f"--- log of {daemon.name}\n{_shortened(daemon.all_logs())}"
                for daemon in self.lab.daemons)
        finally:
            self.lab.close()
        self.assertEqual(wrong, [])

    def run(self, result=None):
        before = len(result.failures) + len(result.errors) if result else 0
        super().run(result)
        if result and len(result.failures) + len(result.errors) > before:
            sys.stderr.write(self.logs)
        return result


def _bound(method, arguments):
    def test(self):
        return method(self, **arguments)
    test.__doc__ = method.__doc__
    return test


def _shortened(text, lines=60, columns=4000):
    all_lines = [line if len(line) <= columns else line[:columns] + "…\n"
                 for line in text.splitlines(keepends=True)]
    if len(all_lines) <= 2 * lines:
        return "".join(all_lines)
    left_out = len(all_lines) - 2 * lines
    return "".join(all_lines[:lines] + [f"… {left_out} lines …\n"] + all_lines[-lines:])
