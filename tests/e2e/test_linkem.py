"""The link emulator between two machines.

    near 10.30.1.1 ──veth── linkem ──veth── 10.30.1.2 far
         fd30:1::1                          fd30:1::2
"""
import json
import re
import signal
import socket
import struct
import time

import natives
from capture import Tap, udp_payloads
from emulated_link import EmulatedLink
from lab import LabError, eventually, run
from lab_test import LabTest, each
from traffic import Iperf, flood, iperf, ping

NEAR = {4: "10.30.1.1", 6: "fd30:1::1"}
FAR = {4: "10.30.1.2", 6: "fd30:1::2"}
UNWANTED = ("frames_lost", "frames_queue_full", "kernel_drops", "receive_errors", "send_errors",
            "no_memory")
ETH_P_ALL, SOL_PACKET, PACKET_AUXDATA = 3, 263, 8
PROMISCUOUS = 0x100  # IFF_PROMISC


def counts(status, names=UNWANTED):
    return {way: {name: status[way][name] for name in names} for way in ("to_left", "to_right")}


NOTHING = {way: dict.fromkeys(UNWANTED, 0) for way in ("to_left", "to_right")}


class LinkTest(LabTest):
    def setUp(self):
        super().setUp()
        self.near, self.far = self.lab.namespace("near"), self.lab.namespace("far")

    def link(self, **options):
        return EmulatedLink(self.lab, self.near, "10.30.1.1/24 fd30:1::1/64",
                            self.far, "10.30.1.2/24 fd30:1::2/64", **options)

    def assert_ping(self, passes=True, family=4):
        told = ping(self.near, FAR[family], wait=1 if passes else 0.3)
        self.assertEqual(told.received, 3 if passes else 0, told.text)


class Frames(LinkTest):
    def test_pass_both_ways(self):
        link = self.link()
        for family in (4, 6):
            self.assertEqual(ping(self.near, FAR[family]).received, 3)
            self.assertEqual(ping(self.far, NEAR[family]).received, 3)
        self.assertEqual(counts(link.status()), NOTHING)

    @each(family=(4, 6))
    @each(checksums=("partial", "whole"))
    def test_tcp_of_super_frames(self, family, checksums):
        """With whole ones, the kernel sums and checks each; a wrong one would not be delivered."""
        link = self.link(queue_kb=100000)
        if checksums == "whole":
            for end in ("left", "right"):
                link.machine.ethtool(end, tx="off")
            self.near.ethtool("far", rx="off")
            self.far.ethtool("near", rx="off")
        for direction in ((), ("-R",)):
            iperf(self.far, self.near, FAR[family], "-n", "20M", *direction)
        status = link.status()
        self.assertEqual(counts(status), NOTHING)
        for way in ("to_left", "to_right"):
            self.assertGreater(status[way]["bytes_delivered"], 10 << 20)
        for ns in (self.near, self.far):
            self.assertEqual(ns.run("nstat", "-asz", "TcpInCsumErrors").stdout.split()[-2], "0")

    def test_super_frames_are_cut_into_what_a_wire_carries(self):
        self.link(queue_kb=100000)
        with Tap(self.far, "near") as tap:
            got, sent = flood(self.far, self.near, FAR[4], size="1400", rate=2000, uso=16)
            packets = udp_payloads(tap.packets(), 5190)
        self.assertEqual((got["received"], got["damaged"], got["late"]), (sent["sent"], 0, 0))
        self.assertEqual({len(each) for each in packets}, {1400})
        self.assertEqual(len(packets), sent["sent"])

    def test_vlan_tags_survive(self):
        """The kernel takes the tag out of a frame that arrives; linkem puts it back."""
        self.link()
        frame = (self.far.mac("near") + self.near.mac("far") + bytes.fromhex("8100 2005 88b5") +
                 bytes(range(100)))
        with self.near.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as sender, \
                self.far.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as receiver:
            receiver.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
            receiver.bind(("near", ETH_P_ALL))  # those of one protocol only see no tags
            receiver.settimeout(5)
            sender.bind(("far", 0))
            sender.send(frame)
            got = b""
            while got[12:14] != frame[16:18]:
                got, controls, _, _ = receiver.recvmsg(2000, 100)
        self.assertEqual(got, frame[:12] + frame[16:])
        (_, _, told), = controls
        self.assertEqual(struct.unpack_from("=IIIHHHH", told)[-2:], (0x2005, 0x8100))

    def test_jumbo_frames(self):
        self.link(mtu=9000)
        self.assertEqual(ping(self.near, FAR[4], size=8972, options=("-M", "do")).received, 3)
        iperf(self.far, self.near, FAR[4], "-n", "20M")


class Model(LinkTest):
    """That the program does what its model says; how exactly is for tests/linkem and bench."""

    def test_loss_of_everything_one_way_and_down_and_up(self):
        link = self.link()
        self.assert_ping()
        link.set(loss=1, to="left")
        self.assert_ping(False)
        self.assertEqual(link.status()["to_right"]["frames_lost"], 0)
        link.set(loss=0)
        self.assert_ping()
        link.down()
        self.assert_ping(False, family=6)
        link.up()
        self.assert_ping(family=6)

    @each(kind=("loss", "burst_loss"))
    def test_loss_of_a_share(self, kind):
        link = self.link()
        self.assert_ping()  # or what finds the neighbour may be lost
        link.set(**{kind: 0.5 if kind == "loss" else (0.5, 4)})
        got, sent = flood(self.far, self.near, FAR[4], rate=4000, port=5191)
        lost = link.status()["to_right"]["frames_lost"]
        self.assertGreater(got["received"], 0)
        self.assertGreaterEqual(lost, sent["sent"] - got["received"])
        self.assertGreater(sent["sent"] - got["received"], 0)

    def test_what_is_under_way_is_lost_when_the_link_goes_down(self):
        link = self.link()
        self.assert_ping()
        link.set(delay_ms=50000)
        self.assert_ping(False)
        under_way = link.status()["to_right"]
        self.assertGreater(under_way["frames_in"], under_way["frames_delivered"])
        link.down()
        link.set(delay_ms=0)
        link.up()
        status = link.status()["to_right"]
        self.assertEqual(status["frames_in"], status["frames_delivered"] + status["frames_lost"])
        self.assert_ping()

    def test_settings_of_one_direction(self):
        link = self.link(rate_mbps=50, delay_ms=1.5, to_left={"rate_mbps": 5, "queue_kb": 64},
                         to_right={"jitter_ms": 1})
        link.set(to="right", loss=0.25, burst_loss=(0.01, 8))
        link.set(reorder=(0.1, 5))
        status = link.status()
        left, right = status["to_left"], status["to_right"]
        self.assertEqual((left["rate_mbps"], left["queue_limit_bytes"], left["delay_ms"]),
                         (5, 64000, 1.5))
        self.assertEqual((right["rate_mbps"], right["jitter_ms"], right["loss"],
                          right["burst_loss"], right["burst_frames"]), (50, 1, 0.25, 0.01, 8))
        self.assertEqual((left["loss"], left["reorder"], left["reorder_ms"]), (0, 0.1, 5))

    def test_the_queue_overflows(self):
        link = self.link(rate_mbps=1, queue_kb=5)
        got, sent = flood(self.far, self.near, FAR[4], size="1000", rate=5000, port=5192)
        status = link.status()["to_right"]
        self.assertGreater(status["frames_queue_full"], 0)
        self.assertLessEqual(status["max_queue_bytes"], 5000)
        self.assertGreater(status["max_queue_bytes"], 5000 - 1042)
        self.assertLess(got["received"], sent["sent"])

    def test_frames_are_reordered(self):
        link = self.link(reorder=(0.1, 20))
        got, sent = flood(self.far, self.near, FAR[4], rate=2000, port=5193)
        self.assertGreater(got["late"], 0)
        self.assertEqual(got["received"], sent["sent"])
        self.assertGreaterEqual(link.status()["to_right"]["frames_held_back"], got["late"])

    def test_live_changes_under_load(self):
        link = self.link(rate_mbps=20, delay_ms=5)
        with Iperf(self.far, self.near, FAR[4], seconds=2) as load:
            for rate in (1, 100, 0, 5, 50):
                link.set(rate_mbps=rate, delay_ms=rate / 10, jitter_ms=1)
                time.sleep(0.2)
            load.report()
        self.assertEqual(link.status()["to_left"]["rate_mbps"], 50)

    def test_a_trace_changes_the_link_again_and_again(self):
        path = f"{self.lab.folder}/trace"
        with open(path, "w", encoding="ascii") as file:
            file.write("# as a train between two tunnels\n0 set rate 10mbit\n"
                       "0.2 to-right down\n0.4 to-right up\n0.4 to-left set rate 5mbit\n0.6 loop\n")
        link = self.link(options=("--trace", path))
        for _ in range(2):
            eventually(lambda: link.status()["to_right"]["down"], 5, "down")
            eventually(lambda: not link.status()["to_right"]["down"], 5, "up again")
            eventually(lambda: link.status()["to_left"]["rate_mbps"] == 5, 5, "5 Mbit/s")
            eventually(lambda: link.status()["to_left"]["rate_mbps"] == 10, 5, "begun again")
        self.assertEqual(link.status()["to_right"]["rate_mbps"], 10)

    def test_a_trace_may_quit(self):
        path = f"{self.lab.folder}/trace"
        with open(path, "w", encoding="ascii") as file:
            file.write("0.1 quit\n")
        self.assertEqual(self.link(options=("--trace", path)).process.wait(5), 0)


class Program(LinkTest):
    def refused(self, *arguments, code=1):
        done = run(natives.path("linkem"), *arguments, check=False)
        self.assertEqual((done.returncode, done.stdout), (code, ""), done.stderr)
        return done.stderr

    def test_bad_options_are_told(self):
        self.assertIn("no such interface", self.refused("nowhere0", "nowhere1"))
        self.assertIn("is no Ethernet interface", self.refused("lo", "nowhere0"))
        self.assertIn("both ends", self.refused("lo", "lo"))
        self.assertIn("RIGHT is required", self.refused("lo", code=2))
        self.assertIn('--rate: "5" is not a rate', self.refused("a", "b", "--rate", "5", code=2))
        self.assertIn("--to-left: loss", self.refused("a", "b", "--to-left", "loss 200%"))
        self.assertIn("/run/netns/nowhere", self.refused("a", "b", "--netns", "nowhere"))
        self.assertIn("/nowhere: cannot be read", self.refused("a", "b", "--trace", "/nowhere"))

    def test_an_interface_that_is_down_is_told(self):
        self.near.ip("link add name one type veth peer name other")
        self.assertIn("one: is down; ip link set one up",
                      self.refused("one", "other", "--netns", self.near.name))

    def test_bad_commands_are_answered_and_change_nothing(self):
        link = self.link(rate_mbps=5)
        before = link.status()["to_right"]
        for line in ("set rate 50mbit loss 101%", "to-left", "stop", "x" * 5000):
            with self.assertRaisesRegex(LabError, "error: "):
                link.command(line)
        self.assertEqual(link.status()["to_right"]["rate_mbps"], before["rate_mbps"])

    def test_leaves_nothing_behind(self):
        link = self.link(options=("--trace", self._trace_of_one_line()))

        def flags():
            return [int(link.machine.run("cat", f"/sys/class/net/{end}/flags").stdout, 16)
                    for end in ("left", "right")]
        packets = link.machine.run("cat", "/proc/net/packet")
        self.assertEqual(len(packets.stdout.splitlines()), 3)
        before = flags()
        statistics = link.stop()
        self.assertEqual(statistics["to_left"]["frames_in"], statistics["to_left"]["frames_lost"] +
                         statistics["to_left"]["frames_delivered"])
        self.assertEqual(len(link.machine.run("cat", "/proc/net/packet").stdout.splitlines()), 1)
        self.assertEqual(flags(), [each & ~PROMISCUOUS for each in before])
        self.assert_ping(False)

    def _trace_of_one_line(self):
        path = f"{self.lab.folder}/trace"
        with open(path, "w", encoding="ascii") as file:
            file.write("3600 down\n")
        return path

    @each(how=("SIGINT", "SIGTERM", "quit", "end_of_input"))
    def test_ends_with_its_statistics(self, how):
        link = self.link(options=("--until-eof",))
        if how == "quit":
            link.process.write("quit\n")
        elif how == "end_of_input":
            link.process.close_input()
        else:
            link.process.send_signal(signal.Signals[how])
        self.assertEqual(link.process.wait(5), 0)
        self.assertEqual(json.loads(link.process.out().splitlines()[-1])["left"], "left")

    def test_goes_on_at_the_end_of_input(self):
        link = self.link()
        link.process.close_input()
        self.assert_ping()
        self.assertIsNone(link.process.poll())

    def test_ends_when_an_interface_goes_away(self):
        link = self.link()
        self.near.ip("link del far")
        self.assertEqual(link.process.wait(5), 1)
        self.assertIn("left: the interface has gone away", link.process.err())

    @each(gone=("near", "far"))
    def test_ends_when_an_interface_goes_away_under_load(self, gone):
        link = self.link(rate_mbps=100, delay_ms=5)
        with Iperf(self.far, self.near, FAR[4], seconds=20):
            eventually(lambda: link.status()["to_right"]["frames_delivered"] > 1000, 5, "traffic")
            getattr(self, gone).ip("link del " + ("far" if gone == "near" else "near"))
            self.assertEqual(link.process.wait(5), 1)
        self.assertIn("the interface has gone away", link.process.err())

    def test_goes_on_when_an_interface_was_down(self):
        link = self.link()
        link.machine.ip("link set left down")
        link.machine.ip("link set left up")
        self.assert_ping()

    def test_the_table_for_people(self):
        link = self.link()
        self.assert_ping()
        done = run("tools/linkem", "left", "right", "--netns", link.machine.name, "--until-eof",
                   "--rate", "5mbit", "--delay", "3ms", input="status\nto-left down\n",
                   cwd=natives.ROOT)
        lines = done.stdout.splitlines()
        self.assertEqual(lines[0], "ready")
        self.assertEqual(lines[1], "left -> right: rate 5mbit delay 3ms queue 256KB")
        self.assertEqual(lines.count("ok"), 2)
        self.assertRegex(done.stdout, r"\n  delivered +\d+ frames")
        self.assertTrue(re.search(r"right -> left: rate 5mbit delay 3ms queue 256KB down\n",
                                  done.stdout), done.stdout)
