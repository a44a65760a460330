"""Where the programs are that the tests run."""
import functools
import os

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.environ.get("BRAID_TEST_BUILD", os.path.join(ROOT, "build"))


@functools.cache
def path(name):
    """A program or library of the build: braid, udp_flood, swarm, …"""
    for folder in ("", "src", "tests", "bench", "linkem"):
        candidate = os.path.join(BUILD, folder, name)
        if os.path.isfile(candidate):
            return candidate
    raise SystemExit(f"{name} is not built in {BUILD}: run tools/test, or meson compile -C {BUILD}")


def braid():
    return path("braid")


def alloc_guard():
    return path("liballoc_guard.so")
