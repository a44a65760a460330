"""The first link goes silent for a while: how long the traffic is still, what is lost, and when the
link carries again."""
import contextlib
import socket
import struct
import time

import carriers
from links import A
from row import Goal, Part, Row
from tcp_stream import in_background, longest_gap_ms, Stream

BEFORE_S, SILENT_S, AFTER_S = 4, 5, 5
PACKETS_PER_S = 100
PACKET_BYTES = 200
PORT = 5400
SAMPLE_S, WINDOW_SAMPLES = 0.02, 10  # of the link's counter
MOST_GAP_MS, MOST_STILL_MS, MOST_BACK_S = 100, 200, 1


class Fault:
    """When it began and ended, and how long after its end the link carried as it should."""

    def __init__(self, link, bytes_per_s):
        time.sleep(BEFORE_S)
        link.down()
        self.began_at = time.monotonic()
        time.sleep(SILENT_S)
        link.up()
        self.ended_at = time.monotonic()
        self.back_s = self._wait_until_it_carries(link, bytes_per_s)

    def _wait_until_it_carries(self, link, bytes_per_s):
        """Until AFTER_S at most, and waits for the rest of them."""
        samples = []
        back_s = None
        while time.monotonic() < self.ended_at + AFTER_S:
            samples.append((time.monotonic(), link.status()["to_right"]["bytes_delivered"]))
            (then, before), (now, after) = samples[-WINDOW_SAMPLES:][0], samples[-1]
            if back_s is None and len(samples) >= WINDOW_SAMPLES and \
                    after - before >= bytes_per_s * (now - then):
                back_s = then - self.ended_at
            time.sleep(SAMPLE_S)
        return AFTER_S if back_s is None else back_s

    def longest_gap_ms(self, arrivals):
        """From the fault's beginning until AFTER_S behind its end."""
        return longest_gap_ms(arrivals, self.began_at, self.ended_at + AFTER_S)


class Datagrams:
    """Numbered ones at a steady pace, and when each number arrived first."""

    def __init__(self, carrier):
        self.receiver = carrier.server.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.receiver.bind(("0.0.0.0", PORT))
        self.receiver.settimeout(0.5)
        self.sender = carrier.client.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sender.connect((carrier.address, PORT))
        self.sent = 0
        self.arrived_at = {}

    def send(self, ended):
        due_at = time.monotonic()
        while not ended.is_set():
            self.sender.send(struct.pack("!I", self.sent) + bytes(PACKET_BYTES - 4))
            self.sent += 1
            due_at += 1 / PACKETS_PER_S
            time.sleep(max(due_at - time.monotonic(), 0))

    def receive(self, ended):
        """Also what is still under way in the end."""
        while True:
            try:
                data = self.receiver.recv(2048)
            except TimeoutError:
                if ended.is_set():
                    return
                continue
            self.arrived_at.setdefault(struct.unpack_from("!I", data)[0], time.monotonic())

    def close(self):
        self.sender.close()
        self.receiver.close()


def datagrams_over(mode):
    # Half of the flow tells it from probes.
    bytes_per_s = PACKETS_PER_S * PACKET_BYTES / 2

    def measure(_seconds, _warm_up):
        with carriers.braid(A, mode=mode) as carrier, \
                contextlib.closing(Datagrams(carrier)) as flow:
            with in_background(flow.send, flow.receive):
                fault = Fault(carrier.links[0], bytes_per_s)
        return {"gap_ms": fault.longest_gap_ms(sorted(flow.arrived_at.values())),
                "lost": flow.sent - len(flow.arrived_at), "back_s": fault.back_s}
    return measure


def stream_over(carrier_of, congestion_control, prefix):
    # A quarter of the link tells a bulk flow from anything else.
    bytes_per_s = A[0]["rate_mbps"] * 1e6 / 8 / 4

    def measure(_seconds, _warm_up):
        with carrier_of(A) as carrier, \
                contextlib.closing(Stream(carrier.server, carrier.client, carrier.address, PORT,
                                          congestion_control, carrier.protocol)) as flow:
            with in_background(flow.send, flow.receive):
                fault = Fault(carrier.links[0], bytes_per_s)
            carrier.check(connections=1)
        return {f"{prefix}still_ms": fault.longest_gap_ms(flow.arrived_at),
                f"{prefix}back_s": fault.back_s}
    return measure


def figure(name):
    return lambda medians: medians[name]


def part(name, measure):
    return Part(name, measure, fixed_seconds=BEFORE_S + SILENT_S + AFTER_S + 2.5,
                takes_seconds=False)


def rows():
    back = Goal("back in use after", figure("back_s"), most=MOST_BACK_S, unit=" s")
    for mode in ("stripe", "preferred", "redundant"):
        redundant = mode == "redundant"
        yield Row(f"silence-{mode}", f"UDP while link 1 is silent, {mode}", A,
                  [part("braid", datagrams_over(mode))],
                  (Goal("longest gap", figure("gap_ms"),
                        most=None if redundant else MOST_GAP_MS, unit=" ms", digits=0),
                   Goal("lost", figure("lost"), most=0 if redundant else None, digits=0), back))
    for congestion_control in carriers.CONGESTION_CONTROLS:
        yield Row(f"silence-{congestion_control}",
                  f"one TCP flow while link 1 is silent, {congestion_control}", A,
                  [part("braid", stream_over(carriers.braid, congestion_control, "")),
                   part("MPTCP", stream_over(carriers.mptcp, congestion_control, "mptcp_"))],
                  (Goal("still at longest", figure("still_ms"), most=MOST_STILL_MS, unit=" ms",
                        digits=0), back,
                   Goal("MPTCP: still at longest", figure("mptcp_still_ms"), unit=" ms", digits=0),
                   Goal("MPTCP: back in use after", figure("mptcp_back_s"), unit=" s")))
