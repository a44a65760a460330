"""DNS through the tunnel where systemd-resolved answers this machine's programs: the real one, with a
system bus of its own, in the client's network.

    programs ── 127.0.0.53 systemd-resolved ┬ 10.77.0.1, inside: the tunnel's
                                            └ 10.20.1.254: what the network gave
"""
import contextlib
import os
import pwd
import socket
import struct
import threading

from lab import eventually
from machines import FAR, SERVER, Machines

UNPACKED = "/var/cache/braid-tests/systemd-resolved"  # by tools/install-deps
RESOLVED = os.path.join(UNPACKED, "lib/systemd/systemd-resolved")
OUTSIDE, INSIDE = "192.0.2.1", "192.0.2.77"  # what the two servers answer


class NameServer:
    """Answers each question for an address with the same one, but for those that it knows."""

    def __init__(self, ns, address, known=()):
        self.answer, self.known = address, dict(known)
        self.asked = []
        self.socket = ns.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("0.0.0.0", 53))
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        with contextlib.suppress(OSError):
            while True:
                question, client = self.socket.recvfrom(4096)
                if not question:
                    return  # closed
                self.socket.sendto(self._reply(question), client)

    def _reply(self, question):
        labels, at = [], 12
        while question[at]:
            labels.append(question[at + 1:at + 1 + question[at]].decode())
            at += 1 + question[at]
        end = at + 5  # behind the name: the end of it, type and class
        name = ".".join(labels).lower()
        self.asked.append(name)
        is_address = struct.unpack("!H", question[at + 1:at + 3])[0] == 1
        header = question[:2] + struct.pack("!5H", 0x8580, 1, int(is_address), 0, 0)
        record = struct.pack("!3HIH", 0xc00c, 1, 1, 0, 4) + socket.inet_aton(
            self.known.get(name, self.answer))
        return header + question[12:end] + (record if is_address else b"")

    def close(self):
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()


class Resolved(Machines):
    def more_folders(self):
        return {"/run": os.path.join(self.lab.folder, "run")}

    def prepare(self, **dns):
        if not os.path.exists(RESOLVED):
            self.fail(f"{RESOLVED} is missing: run tools/install-deps")
        self.run_folder = os.path.join(self.lab.folder, "run")
        for folder in ("dbus", "systemd"):
            os.makedirs(os.path.join(self.run_folder, folder))
        self.set_up(client={"network": {"dns": {"servers": ["10.77.0.1"], **dns}}})
        os.remove(os.path.join(self.etc, "resolv.conf"))
        os.symlink("../run/systemd/resolve/stub-resolv.conf",
                   os.path.join(self.etc, "resolv.conf"))
        self.inside = NameServer(self.server_ns, INSIDE)
        self.outside = NameServer(self.provider, OUTSIDE, {"hub.example": SERVER[4]})
        self.addCleanup(self.inside.close)
        self.addCleanup(self.outside.close)
        # The server's own name is looked up outside.
        self.client.config["tunnel"]["peers"][0]["endpoints"] = ["hub.example:7700"]
        self.start_resolved()

    def write(self, path, text):
        with open(os.path.join(self.etc, path), "a", encoding="ascii") as file:
            file.write(text)

    def start_resolved(self):
        if "systemd-resolve" not in {user.pw_name for user in pwd.getpwall()}:
            self.write("passwd", "systemd-resolve:x:64998:64998::/:/usr/sbin/nologin\n")
            self.write("group", "systemd-resolve:x:64998:\n")
        os.makedirs(os.path.join(self.etc, "systemd"), exist_ok=True)
        with open(os.path.join(self.etc, "systemd/resolved.conf"), "w", encoding="ascii") as file:
            file.write("[Resolve]\nDNS=10.20.1.254\nFallbackDNS=\nLLMNR=no\n"
                       "MulticastDNS=no\nDNSSEC=no\n")
        bus = os.path.join(self.lab.folder, "bus.conf")
        with open(bus, "w", encoding="ascii") as file:
            file.write(f"""<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
                "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
                <busconfig>
                  <type>system</type>
                  <listen>unix:path=/run/dbus/system_bus_socket</listen>
                  <policy context="default">
                    <allow user="*"/>
                    <allow send_type="method_call" send_destination="org.freedesktop.DBus"/>
                    <allow receive_type="method_call"/>
                    <allow receive_type="method_return"/>
                    <allow receive_type="error"/>
                    <allow receive_type="signal"/>
                    <allow send_type="signal"/>
                    <allow send_requested_reply="true" send_type="method_return"/>
                    <allow send_requested_reply="true" send_type="error"/>
                  </policy>
                  <includedir>{UNPACKED}/usr/share/dbus-1/system.d</includedir>
                </busconfig>""")
        self.client_ns.start("bus", *self.own_files, "dbus-daemon", f"--config-file={bus}",
                             "--nofork", "--nopidfile")
        eventually(lambda: os.path.exists(os.path.join(self.run_folder,
                                                       "dbus/system_bus_socket")), 5, "a bus")
        self.resolved = self.client_ns.start(
            "resolved", *self.own_files, "env", *self.library_path(), RESOLVED)
        eventually(lambda: "10.20.1.254" in self.resolvectl("dns"), 5, "systemd-resolved answers")

    @staticmethod
    def library_path():
        folders = [folder for folder, _, files in os.walk(UNPACKED)
                   if any(file.endswith(".so") for file in files)]
        return [f"LD_LIBRARY_PATH={':'.join(folders)}"]

    def resolvectl(self, *arguments):
        return self.client_ns.run(
            *self.own_files, "env", *self.library_path(),
            os.path.join(UNPACKED, "usr/bin/resolvectl"), *arguments, check=False).stdout

    def looked_up(self, name):
        """As any program does it, through the C library."""
        words = self.client_ns.run(*self.own_files, "getent", "ahostsv4", name,
                                   check=False).stdout.split()
        return words[0] if words else None

    def assert_nothing_is_left(self):
        self.assertNotIn("braid0", self.resolvectl("dns"))
        self.assertNotIn("10.77.0.1", self.resolvectl("dns"))
        self.assertEqual(os.readlink(os.path.join(self.etc, "resolv.conf")),
                         "../run/systemd/resolve/stub-resolv.conf")

    def test_all_names_are_looked_up_inside(self):
        self.prepare()
        self.assertEqual(self.looked_up("one.example"), OUTSIDE)
        self.tunnel.start()
        self.eventually_seen_as(self.client_ns, FAR[4], SERVER[4])
        self.assertIn("hub.example", self.outside.asked)
        self.assertRegex(self.resolvectl("dns", "braid0"), r"\(braid0\): 10\.77\.0\.1\n")
        self.assertRegex(self.resolvectl("domain", "braid0"), r"\(braid0\): ~\.\n")
        self.assertRegex(self.resolvectl("default-route", "braid0"), r"\(braid0\): yes\n")
        self.assertEqual(self.looked_up("two.example"), INSIDE)
        self.assertNotIn("two.example", self.outside.asked)
        self.assertEqual(self.client.stop(), [])
        self.assert_nothing_is_left()
        self.assertEqual(self.looked_up("three.example"), OUTSIDE)
        self.assertNotIn("three.example", self.inside.asked)

    def test_some_domains_are_looked_up_inside_and_a_kill_ends_that(self):
        self.prepare(domains=["corp.example"])
        self.tunnel.start()
        self.eventually_seen_as(self.client_ns, FAR[4], SERVER[4])
        self.assertRegex(self.resolvectl("domain", "braid0"), r"\(braid0\): corp\.example\n")
        self.assertRegex(self.resolvectl("default-route", "braid0"), r"\(braid0\): no\n")
        self.assertEqual(self.looked_up("one.corp.example"), INSIDE)
        self.assertEqual(self.looked_up("two.example"), OUTSIDE)
        self.assertNotIn("one.corp.example", self.outside.asked)
        self.assertNotIn("two.example", self.inside.asked)
        self.client.kill()
        eventually(lambda: "braid0" not in self.resolvectl("dns"), 5, "it forgets the device")
        self.cleanup()
        self.assert_nothing_is_left()
        self.assertEqual(self.looked_up("three.corp.example"), OUTSIDE)

    def test_what_others_revert_is_set_again(self):
        self.prepare()
        self.tunnel.start()
        self.eventually_seen_as(self.client_ns, FAR[4], SERVER[4])
        self.resolvectl("revert", "braid0")
        self.assertNotIn("10.77.0.1", self.resolvectl("dns", "braid0"))
        eventually(lambda: "10.77.0.1" in self.resolvectl("dns", "braid0"), 30,
                   "it is told again", 0.5)

    def test_what_it_was_told_outlives_its_restart(self):
        self.prepare()
        self.tunnel.start()
        self.eventually_seen_as(self.client_ns, FAR[4], SERVER[4])
        self.resolved.stop()
        self.resolved = self.client_ns.start(
            "resolved2", *self.own_files, "env", *self.library_path(), RESOLVED)
        eventually(lambda: "10.77.0.1" in self.resolvectl("dns", "braid0"), 5, "it remembers")
        self.assertEqual(self.looked_up("two.example"), INSIDE)
