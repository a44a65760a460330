"""The demonstration that tools/demo runs: a bond of two links (demo_bond.py), or with --wire a tunnel
over one wire, and real traffic through it and beside it.

    client 10.20.1.1 ──veth── 10.20.1.2 server
      └ 10.77.0.2 ══ braid0 ══ 10.77.0.1 ┘
"""
import argparse
import os
import re
import sys
import time

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import demo_bond  # noqa: E402
import lab as labs  # noqa: E402
from terminal import headline, note, tinted  # noqa: E402
from topology import INNER, OUTER, Tunnel  # noqa: E402
from traffic import ping  # noqa: E402

UDP_MBPS = 200  # what iperf3 itself takes in on a small machine without losing much

class Iperf:
    """iperf3 with its lines as they come, and the rate it ends with."""

    def __init__(self, client, server, seconds):
        self.client, self.server, self.seconds = client, server, seconds
        self.port = 5200

    def run(self, address, *options):
        """Mbit/s that arrived, and the share that was lost (of UDP)."""
        self.port += 1
        server = self.server.start(f"iperf{self.port}", "iperf3", "-s", "-1", "-p", self.port,
                                   "--forceflush")
        labs.eventually(lambda: "listening" in server.out(), 5, "iperf3 listens")
        client = self.client.start(f"iperf-client{self.port}", "iperf3", "-c", address, "-p",
                                   self.port, "-t", self.seconds, "-f", "m", "--forceflush",
                                   *options)
        shown = 0
        while client.poll() is None:
            shown = self._show(client.out(), shown)
            time.sleep(0.1)
        text = client.out()
        self._show(text, shown)
        server.stop()
        return self._result(text + client.err())

    def _show(self, text, shown):
        lines = text[:text.rfind("\n") + 1].splitlines()
        for line in lines[shown:]:
            if re.search(r"sec .*bits/sec", line) and ("SUM" in line or "SUM" not in text):
                print("   " + line, flush=True)
        return len(lines)

    def _result(self, text):
        found = re.findall(r"([\d.]+) Mbits/sec.*receiver", text)
        if not found:
            raise labs.LabError("iperf3 did not finish:\n" + text)
        lost = re.findall(r"\(([\d.e+-]+)%\)\s+receiver", text)
        return float(found[-1]), float(lost[-1]) if lost else None


class Table:
    """What was measured, with and without the tunnel, beside each other."""

    def __init__(self):
        self.rows = []

    def add(self, name, unit, tunnel, wire):
        self.rows.append((name, unit, tunnel, wire))

    def show(self):
        print(tinted(1, f"{'':34}{'tunnel':>12}{'no tunnel':>12}  {'':8}{'':>7}"))
        for name, unit, tunnel, wire in self.rows:
            if unit == "Mbit/s":
                ratio = f"× {tunnel / wire:.2f}"
            else:
                ratio = f"{tunnel - wire:+.2f}"
            print(f"{name:34}{tinted(32, f'{tunnel:12,.2f}')}{wire:12,.2f}  {unit:8}{ratio:>7}")


def show_ping(ns, address):
    result = ping(ns, address, count=20, interval=0.05)
    for line in result.text.splitlines()[-3:]:
        if line:
            print("   " + line)
    if result.average_ms is None:
        raise labs.LabError("nothing answers:\n" + result.text)
    return result.average_ms


def measure(tunnel, seconds):
    client, server = tunnel.client_ns, tunnel.server_ns
    iperf = Iperf(client, server, seconds)
    table = Table()
    for family in (4, 6):
        inside, beside = INNER[family][1], OUTER[family][1]
        headline(f"ping over IPv{family}, through the tunnel and beside it")
        table.add(f"ping, IPv{family}, average", "ms", show_ping(client, inside),
                  show_ping(client, beside))
        for what, options in (("TCP, one flow", ()), ("TCP, four flows", ("-P", "4")),
                              ("UDP, 1200 bytes", ("-u", "-b", f"{UDP_MBPS}M", "-l", "1200"))):
            if family == 6 and "four" in what:
                continue
            headline(f"{what} over IPv{family}, through the tunnel")
            through, lost = iperf.run(inside, *options)
            headline(f"{what} over IPv{family}, beside it")
            without, lost_without = iperf.run(beside, *options)
            table.add(f"{what}, IPv{family}", "Mbit/s", through, without)
            if lost is not None:
                table.add("  of it lost", "%", lost, lost_without)
    return table


def show_wire(lab, seconds, both):
    """Returns what went wrong in the daemons."""
    headline("two machines, one wire, fresh keys")
    note(__doc__.split("\n\n", 1)[1].rstrip())
    tunnel = Tunnel(lab, guarded=False, both=both)
    tunnel.start()
    for daemon in tunnel.daemons:
        print(daemon.log(), end="")
    table = measure(tunnel, seconds)
    headline("what the client says of itself")
    print(tunnel.client.shown_status())
    headline("measured")
    table.show()
    return tunnel.client.stop() + tunnel.server.stop()


def main():
    parser = argparse.ArgumentParser(prog="tools/demo")
    parser.add_argument("--wire", action="store_true")
    parser.add_argument("--seconds", type=int)
    parser.add_argument("--cipher", default="aes-256-gcm",
                        choices=("aes-256-gcm", "chacha20-poly1305"))
    parser.add_argument("--io", default="auto", choices=("auto", "io_uring", "epoll"))
    arguments = parser.parse_args()
    labs.require_root()

    ciphers = [arguments.cipher]
    if arguments.cipher != "chacha20-poly1305":
        ciphers.append("chacha20-poly1305")
    both = {"network": {"mtu": 1420}, "log": {"level": "info"},
            "tunnel": {"ciphers": ciphers}, "performance": {"io": arguments.io}}
    with labs.Lab() as lab:
        if arguments.wire:
            wrong = show_wire(lab, arguments.seconds or 3, both)
        else:
            wrong = demo_bond.run(lab, arguments.seconds or 6, both)
    if wrong:
        sys.exit("\n".join(wrong))
    note("\nBoth ends, the links and the traffic share this machine's cores. Nothing is left behind.")


if __name__ == "__main__":
    try:
        main()
    except (labs.LabError, AssertionError) as error:
        sys.exit(f"tools/demo: {error}")
