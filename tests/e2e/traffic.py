"""Real traffic, and what it measured."""
import json
import re
import signal
import subprocess
import time

import natives
from lab import eventually


class Pings:
    """What `ping` counted."""

    def __init__(self, text):
        self.text = text
        counts = re.search(r"(\d+) packets transmitted, (\d+) received", text)
        self.sent, self.received = (int(counts[1]), int(counts[2])) if counts else (0, 0)
        self.times_ms = [float(each) for each in re.findall(r"time=([\d.]+) ms", text)]
        times = re.search(r"= ([\d.]+)/([\d.]+)/([\d.]+)/", text)
        self.average_ms = float(times[2]) if times else None
        self.longest_ms = float(times[3]) if times else None
        too_big = re.search(r"mtu ?[=:] ?(\d+)", text)
        self.told_mtu = int(too_big[1]) if too_big else None


def ping(ns, address, count=3, interval=0.05, size=56, wait=2, options=()):
    done = ns.run("ping", "-n", "-c", count, "-i", interval, "-s", size, "-W", wait, *options,
                  address, check=False)
    return Pings(done.stdout + done.stderr)


class Pinger:
    """A ping that goes on in the background and remembers when each answer came."""

    def __init__(self, ns, address, interval=0.05):
        self.process = ns.start(f"pinger-{time.monotonic_ns()}", "stdbuf", "-oL",
                                "ping", "-n", "-D", "-i", interval, address)

    def answers(self):
        """Times of the answers, in seconds as time.time() has them."""
        return [float(each) for each in
                re.findall(r"^\[([\d.]+)\] \d+ bytes from", self.process.out(), re.M)]

    def wait_for_answer_after(self, moment, seconds):
        """How long after `moment` the first answer came."""
        def answered():
            return [each for each in self.answers() if each > moment]
        return eventually(answered, seconds, "an answer to ping")[0] - moment

    def stop(self):
        # Between an answer and the next ping, where answers come: what is under way is no loss.
        before, until = len(self.answers()), time.monotonic() + 1
        while len(self.answers()) == before and time.monotonic() < until:
            time.sleep(0.002)
        self.process.stop(signal.SIGINT)
        return Pings(self.process.out())

    def longest_gap(self):
        answers = self.answers()
        return max((b - a for a, b in zip(answers, answers[1:])), default=float("inf"))


_next_port = 5200


class Iperf:
    """iperf3 between two machines, in the background. `wrap` is what it is run by, as mptcpize."""

    def __init__(self, server, client, address, *options, seconds=1, omit=0, wrap=()):
        global _next_port
        _next_port += 1
        self.what = " ".join(["iperf3", address, *map(str, options)])
        self.seconds = seconds + omit
        self.server = server.start(f"iperf{_next_port}", *wrap, "iperf3", "-s", "-1", "-p",
                                   _next_port, "--forceflush")
        eventually(lambda: "listening" in self.server.out(), 5, "iperf3 listens")
        # -J goes last: an error then comes as JSON too.
        length = () if "-n" in options else ("-t", seconds, "-O", omit)
        self.client = client.start(f"iperf-client{_next_port}", *wrap, "iperf3", "-c", address,
                                   "-p", _next_port, "--connect-timeout", 5000, *length, *options,
                                   "-J")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.client.kill()
        self.server.kill()

    def report(self):
        """Waits for its end."""
        try:
            code = self.client.wait(self.seconds + 20)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.what}: did not end") from None
        report = json.loads(self.client.out() or "{}")
        if code != 0 or "error" in report:
            raise AssertionError(f"{self.what}: {report.get('error')} {self.client.err()}")
        return report


def iperf(server, client, address, *options, seconds=1, omit=0):
    """Runs iperf3 between two machines; returns its report."""
    with Iperf(server, client, address, *options, seconds=seconds, omit=omit) as running:
        return running.report()


def tcp_mbps(report):
    return report["end"]["sum_received"]["bits_per_second"] / 1e6


UDP_PORT = 5190


def flood(server, client, address, size="64", seconds=0.5, rate=0, flows=1, port=UDP_PORT, uso=1):
    """Numbered datagrams from `client` to `server`; returns the receiver's and sender's counts.

    `uso` of them go in one send, and the receiver takes them joined.
    """
    program = natives.path("udp_flood")
    receiver = server.start(f"flood-{time.monotonic_ns()}", program, "receive", "--port", port,
                            "--address", "::" if ":" in address else "0.0.0.0",
                            "--seconds", seconds + 30, "--gro", int(uso > 1))
    try:
        eventually(lambda: "listening" in receiver.err(), 5, "udp_flood listens")
        done = client.run(program, "send", "--to", address, "--port", port, "--size", size,
                          "--seconds", seconds, "--rate", rate, "--flows", flows, "--uso", uso)
        time.sleep(0.2)  # what is under way
    finally:
        receiver.stop(signal.SIGTERM)
    return json.loads(receiver.out()), json.loads(done.stdout)


def ping_pong(server, client, address, seconds=1, port=5180):
    """One byte there and one back over TCP; returns answers per second and their percentiles."""
    program = natives.path("ping_pong")
    serving = server.start(f"ping-pong-{time.monotonic_ns()}", program, "serve", "--port", port,
                           "--seconds", 10)
    try:
        eventually(lambda: "listening" in serving.err(), 5, "ping_pong listens")
        done = client.run(program, "ask", "--to", address, "--port", port, "--seconds", seconds)
    finally:
        serving.kill()
    return json.loads(done.stdout)
