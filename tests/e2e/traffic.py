"""Real traffic, and what it measured."""
import json
import re
import signal
import time

import natives
from lab import eventually


class Pings:
    """What `ping` counted."""

    def __init__(self, text):
        self.text = text
        counts = re.search(r"(\d+) packets transmitted, (\d+) received", text)
        self.sent, self.received = (int(counts[1]), int(counts[2])) if counts else (0, 0)
        times = re.search(r"= ([\d.]+)/([\d.]+)/([\d.]+)/", text)
        self.average_ms = float(times[2]) if times else None
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
        self.process.stop(signal.SIGINT)
        return Pings(self.process.out())

    def longest_gap(self):
        answers = self.answers()
        return max((b - a for a, b in zip(answers, answers[1:])), default=float("inf"))


_next_port = 5200


def iperf(server, client, address, *options, seconds=1, omit=0):
    """Runs iperf3 between two machines; returns its report."""
    global _next_port
    _next_port += 1
    process = server.start(f"iperf{_next_port}", "iperf3", "-s", "-1", "-p", _next_port,
                           "--forceflush")
    eventually(lambda: "listening" in process.out(), 5, "iperf3 listens")
    # -J goes last: an error then comes as JSON too.
    length = () if "-n" in options else ("-t", seconds, "-O", omit)
    done = client.run("iperf3", "-c", address, "-p", _next_port, *length, *options, "-J",
                      check=False, timeout=seconds + omit + 20)
    process.stop(signal.SIGTERM)
    report = json.loads(done.stdout or "{}")
    if done.returncode != 0 or "error" in report:
        raise AssertionError(f"iperf3 {address} {options}: {report.get('error')} {done.stderr}")
    return report


def tcp_mbps(report):
    return report["end"]["sum_received"]["bits_per_second"] / 1e6


def flood(server, client, address, size="64", seconds=0.5, rate=0, flows=1, port=5190):
    """Numbered datagrams from `client` to `server`; returns the receiver's and sender's counts."""
    program = natives.path("udp_flood")
    receiver = server.start(f"flood-{time.monotonic_ns()}", program, "receive", "--port", port,
                            "--address", "::" if ":" in address else "0.0.0.0",
                            "--seconds", seconds + 30)
    eventually(lambda: "listening" in receiver.err(), 5, "udp_flood listens")
    done = client.run(program, "send", "--to", address, "--port", port, "--size", size,
                      "--seconds", seconds, "--rate", rate, "--flows", flows)
    time.sleep(0.2)  # what is under way
    receiver.stop(signal.SIGTERM)
    return json.loads(receiver.out()), json.loads(done.stdout)
