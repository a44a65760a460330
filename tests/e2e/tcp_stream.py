"""A TCP flow as fast as it goes, watched where it arrives."""
import contextlib
import socket
import threading
import time


class Stream:
    """`received` bytes so far, and when something of them arrived."""

    def __init__(self, server, client, address, port, congestion_control=None, protocol=0):
        def opened(machine):
            made = machine.socket(socket.AF_INET, socket.SOCK_STREAM, protocol)
            if congestion_control:
                made.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION,
                                congestion_control.encode())
            return made
        self.listener, self.sender = opened(server), opened(client)
        self.listener.bind(("0.0.0.0", port))
        self.listener.listen(1)
        self.sender.connect((address, port))
        self.receiver, _ = self.listener.accept()
        self.received = 0
        self.arrived_at = []

    def send(self, ended):
        block = bytes(1 << 16)
        self.sender.settimeout(0.5)
        while not ended.is_set():
            with contextlib.suppress(TimeoutError):
                self.sender.send(block)
        self.sender.shutdown(socket.SHUT_RDWR)

    def receive(self, ended):
        self.receiver.settimeout(0.5)
        while not ended.is_set():
            with contextlib.suppress(TimeoutError):
                piece = self.receiver.recv(1 << 18)
                if not piece:
                    return
                self.received += len(piece)
                self.arrived_at.append(time.monotonic())

    def close(self):
        for each in (self.sender, self.receiver, self.listener):
            each.close()


@contextlib.contextmanager
def in_background(*functions):
    """Each gets an event that tells it to end."""
    ended = threading.Event()
    threads = [threading.Thread(target=function, args=(ended,)) for function in functions]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        for thread in threads:
            thread.join()


def longest_gap_ms(arrivals, began_at, until):
    """Between those two moments, of times in order: from the last arrival before the first."""
    before = [at for at in arrivals if at <= began_at]
    within = [at for at in arrivals if began_at < at < until]
    times = [before[-1] if before else began_at, *within, until]
    return 1000 * max(b - a for a, b in zip(times, times[1:]))
