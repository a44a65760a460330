"""What braid probe finds out of SOCKS5 servers.

    here 10.20.1.1 ──veth── 10.20.1.2, fd20:1::2 proxy, with a DNS server
"""
import contextlib
import json
import os
import re
import socket
import threading

import natives
import socks5
from lab import run
from lab_test import LabTest
from socks5 import PASSWORD, USER

PROXY = "10.20.1.2"
NAME_SERVER = f"{PROXY}:53"
# What a proxy is asked for once it lets one in.
REQUESTS = ("connect", "pipelined", "udp_associate")


class Probe(LabTest):
    beside_others = True

    def setUp(self):
        super().setUp()
        self.here, self.proxy = self.lab.namespace("here"), self.lab.namespace("proxy")
        self.lab.link(self.here, "10.20.1.1/24 fd20:1::1/64",
                      self.proxy, f"{PROXY}/24 fd20:1::2/64")

    def serve(self, *options, port=1080):
        return socks5.Server(self.proxy, port, *options)

    def name_server(self):
        resolver = self.proxy.socket(socket.AF_INET, socket.SOCK_DGRAM)
        resolver.bind((PROXY, 53))

        def answer():
            with contextlib.suppress(OSError):
                while True:
                    query, client = resolver.recvfrom(512)
                    if client is None:
                        return
                    resolver.sendto(query[:2] + b"\x81\x85" + query[4:], client)  # refused

        def close():
            with contextlib.suppress(OSError):
                resolver.shutdown(socket.SHUT_RDWR)
            resolver.close()
        threading.Thread(target=answer, daemon=True).start()
        self.addCleanup(close)

    @contextlib.contextmanager
    def listener(self):
        """At 10.20.1.1:7000."""
        with self.here.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
            listener.bind(("10.20.1.1", 7000))
            listener.listen()
            yield

    def password_file(self, text=PASSWORD):
        path = os.path.join(self.lab.folder, "password")
        with open(path, "w", encoding="ascii", opener=lambda *a: os.open(*a, mode=0o600)) as file:
            file.write(text + "\n")
        return path

    def probe(self, *options, at=PROXY, wrap=()):
        return self.here.run(*wrap, natives.braid(), "probe", f"socks5://{at}", *options,
                             check=False)

    def steps(self, *options, at=PROXY, wrap=(), works=True):
        """The steps by name, of a proxy that works or does not."""
        done = self.probe("--json", *options, at=at, wrap=wrap)
        report = json.loads(done.stdout)
        self.assertEqual((report["works"], done.returncode), (works, 0 if works else 1), report)
        return {step["name"]: step for step in report["steps"]}

    def assert_ends_with(self, steps, name, why):
        """It fails there, and nothing is tried after it."""
        self.assertEqual(steps[name]["status"], "failed")
        self.assertIn(why, steps[name]["found"])
        names = list(steps)
        at = names.index(name)
        self.assertEqual({steps[each]["status"] for each in names[:at]} - {"ok"}, set())
        self.assertEqual({steps[each]["status"] for each in names[at + 1:]} - {"not tried"}, set())

    # --- What works ---

    def test_all_that_a_proxy_can_do(self):
        self.serve()
        self.name_server()
        for at in (PROXY, "[fd20:1::2]:1080"):
            with self.subTest(at):
                steps = self.steps("--udp", NAME_SERVER, at=at)
                self.assertEqual(list(steps), ["reachable", "greeting", "authentication",
                                               *REQUESTS, "udp"])
                self.assertEqual({step["status"] for step in steps.values()}, {"ok"}, steps)
                self.assertEqual([steps[name]["reply"] for name in REQUESTS], [0, 0, 0])
                self.assertRegex(steps["udp_associate"]["found"], r"relays at \S+:\d+$")
                self.assertEqual(steps["udp"]["found"], f"{NAME_SERVER} answers")
        done = self.probe("--udp", NAME_SERVER)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertLessEqual(max(map(len, done.stdout.splitlines())), 80)
        self.assertRegex(done.stdout, rf"(?m)^  ok    CONNECT +[\d.]+ ms  to {PROXY}:1080$")
        self.assertTrue(done.stdout.endswith("\n\nit carries TCP and UDP\n"), done.stdout)

    def test_without_a_dns_server_nobody_is_asked(self):
        server = self.serve()
        self.assertEqual(list(self.steps()), ["reachable", "greeting", "authentication",
                                              *REQUESTS])
        self.assertEqual(server.counts()["udp_datagrams_up"], 0)
        self.assertEqual(server.counts()["now_open"], 0)

    def test_a_login(self):
        self.serve("--user", USER, "--password", PASSWORD)
        wrong = self.steps(works=False)
        self.assert_ends_with(wrong, "greeting", "another method")
        self.assertIn("user name", wrong["greeting"]["advice"])
        at = f"{USER}@{PROXY}"
        right = self.steps("--password-file", self.password_file(), at=at)
        self.assertEqual(right["greeting"]["found"], "user name and password are wanted")
        self.assertEqual(right["authentication"]["found"], "accepted")
        self.assertEqual(right["pipelined"]["status"], "ok")
        self.assert_ends_with(
            self.steps("--password-file", self.password_file("else"), at=at, works=False),
            "authentication", "refused user name and password")

    def test_a_password_on_the_command_line_is_warned_of_and_not_repeated(self):
        self.serve("--user", USER, "--password", PASSWORD)
        at = f"{USER}:{PASSWORD.replace(' ', '%20')}@{PROXY}"
        for options in ((), ("--json",)):
            done = self.probe(*options, at=at)
            self.assertEqual(done.returncode, 0)
            self.assertIn("--password-file FILE", done.stderr)
            self.assertNotIn(PASSWORD, done.stdout + done.stderr)
        done = self.probe("--password-file", self.password_file(), at=f"{USER}@{PROXY}")
        self.assertEqual((done.returncode, done.stderr), (0, ""))

    def test_a_login_that_nobody_wants_is_not_sent(self):
        self.serve()
        steps = self.steps("--password-file", self.password_file(), at=f"{USER}@{PROXY}")
        self.assertIn("not sent", steps["authentication"]["found"])

    def test_a_name_of_the_hosts_file(self):
        self.serve(port=9050)
        path = os.path.join(self.lab.folder, "hosts")
        with open(path, "w", encoding="ascii") as file:
            file.write(f"10.20.1.9 proxy.test\n{PROXY} proxy.test\n")
        own_hosts = ("unshare", "--mount", "sh", "-c",
                     f'mount --bind {path} /etc/hosts && exec "$@"', "-")
        self.here.ip("route add unreachable 10.20.1.9")
        steps = self.steps(at="proxy.test:9050", wrap=own_hosts)
        self.assertEqual(steps["name"]["found"], f"10.20.1.9, {PROXY}")
        self.assertRegex(steps["reachable"]["found"], rf"^{PROXY}:9050; not 10\.20\.1\.9:9050: ")
        self.assert_ends_with(self.steps("--timeout", 1, at="nobody.test", wrap=own_hosts,
                                         works=False), "name", "")

    # --- What does not ---

    def test_a_proxy_that_is_not_there(self):
        self.assert_ends_with(self.steps(works=False), "reachable",
                              f"{PROXY}:1080: Connection refused")
        self.proxy.nft("table inet t { chain c { type filter hook input priority 0; "
                       "tcp dport 1080 drop; }; }")
        steps = self.steps("--timeout", 0.5, works=False)
        self.assert_ends_with(steps, "reachable", "timed out")
        self.assertLess(steps["reachable"]["ms"], 4000)

    def test_what_is_no_proxy(self):
        for behaviour, name, why in (("wrong-version", "greeting", "does not speak SOCKS5"),
                                     ("method-ff", "greeting", "another method"),
                                     ("stall-greeting", "greeting", "no answer in time"),
                                     ("close-at:1", "greeting", "closed the connection")):
            with self.subTest(behaviour):
                server = self.serve("--behave", behaviour)
                self.assert_ends_with(self.steps("--timeout", 0.5, works=False), name, why)
                server.kill()

    def test_a_connection_that_is_refused(self):
        self.serve("--behave", "refuse:2")
        steps = self.steps(works=False)
        self.assertEqual(steps["connect"]["status"], "failed")
        self.assertEqual(steps["connect"]["found"],
                         f"to {PROXY}:1080: not allowed by the server's rules (2)")
        self.assertIn("--connect", steps["connect"]["advice"])
        # It has understood what came at once, and says so.
        self.assertEqual(steps["pipelined"]["status"], "ok")
        self.assertEqual([steps[name]["reply"] for name in REQUESTS], [2, 2, 2])

    def test_where_it_is_to_connect_to(self):
        self.serve("--name", "far.test=10.20.1.1")
        with self.listener():
            self.assertEqual(self.steps("--connect", "far.test:7000")["connect"]["found"],
                             "to far.test:7000")
        steps = self.steps("--connect", "10.20.1.1:7000", works=False)
        self.assertEqual((steps["connect"]["reply"], steps["connect"]["advice"]), (5, None))
        self.assertEqual(steps["udp_associate"]["status"], "ok")

    def test_an_answer_to_the_request_that_does_not_come(self):
        self.serve("--behave", "stall-reply")
        steps = self.steps("--timeout", 0.5, works=False)
        self.assertIn("no answer in time", steps["connect"]["found"])
        # There is nothing to compare it with.
        self.assertEqual(steps["pipelined"]["status"], "not tried")
        self.assertIn("no answer in time", steps["udp_associate"]["found"])

    def test_a_proxy_that_takes_one_thing_at_a_time(self):
        self.serve("--behave", "no-pipelining")
        steps = self.steps()
        self.assertEqual(steps["pipelined"]["status"], "failed")
        self.assertIn("closed", steps["pipelined"]["found"])
        self.assertEqual(steps["udp_associate"]["status"], "ok")

    def test_no_datagrams(self):
        server = self.serve("--no-udp")
        steps = self.steps("--udp", NAME_SERVER)
        self.assertEqual((steps["udp_associate"]["status"], steps["udp_associate"]["reply"]),
                         ("failed", 7))
        self.assertEqual(steps["udp"]["status"], "not tried")
        self.assertTrue(self.probe().stdout.endswith("\n\nit carries TCP\n"))
        server.kill()
        self.name_server()
        for behaviour, why in (("drop-udp", "no answer in time"),
                               ("udp-frag", "no answer in time"),
                               ("bnd-other", ""),
                               ("udp-close-control:100", "has ended the association")):
            with self.subTest(behaviour):
                server = self.serve("--behave", behaviour)
                # Nobody answers there.
                asked = f"{PROXY}:54" if behaviour.startswith("udp-close") else NAME_SERVER
                steps = self.steps("--udp", asked, "--timeout", 0.6)
                self.assertEqual(steps["udp_associate"]["status"], "ok")
                self.assertEqual(steps["udp"]["status"], "failed")
                self.assertIn(why, steps["udp"]["found"])
                server.kill()

    def test_a_relay_that_does_not_say_where_it_is(self):
        self.serve("--behave", "bnd-zero")
        self.name_server()
        steps = self.steps("--udp", NAME_SERVER)
        self.assertRegex(steps["udp_associate"]["found"],
                         rf"^relays at {PROXY}:\d+; it says 0\.0\.0\.0$")
        self.assertEqual(steps["udp"]["status"], "ok")

    # --- Others' ---

    def test_microsocks(self):
        socks5.microsocks(self.proxy, login=(USER, PASSWORD))
        steps = self.steps("--password-file", self.password_file(), "--timeout", 1,
                           at=f"{USER}@{PROXY}")
        self.assertEqual(steps["authentication"]["found"], "accepted")
        self.assertEqual(steps["udp_associate"]["status"], "failed")
        self.assertEqual(steps["udp_associate"]["reply"], 7)

    def test_dante(self):
        socks5.dante(self.lab, self.proxy, PROXY, (PROXY,))
        self.name_server()
        # It does not connect to itself, and that is told.
        steps = self.steps(works=False)
        self.assertEqual(steps["connect"]["reply"], 2)
        self.assertIn("--connect", steps["connect"]["advice"])
        with self.listener():
            steps = self.steps("--udp", NAME_SERVER, "--connect", "10.20.1.1:7000")
        self.assertEqual({step["status"] for step in steps.values()}, {"ok"}, steps)

    # --- The command line ---

    def test_mistakes_are_told_without_the_password(self):
        for arguments in (("http://me:hidden@proxy",), ("socks5://me:hidden@proxy:0",),
                          ("socks5://me@proxy",), ("socks5://proxy", "--password-file", "x"),
                          ("socks5://me:hidden@proxy", "--password-file", "x"),
                          ("socks5://proxy", "--connect", "there"),
                          ("socks5://proxy", "--udp", "192.0.2.1"),
                          ("socks5://proxy", "--timeout", 0), ()):
            with self.subTest(arguments):
                done = run(natives.braid(), "probe", *arguments, check=False)
                self.assertEqual((done.returncode, done.stdout), (2, ""))
                self.assertTrue(re.match(r".+\n", done.stderr))
                self.assertNotIn("hidden", done.stderr)
        done = run(natives.braid(), "probe", "socks5://me@proxy", "--password-file", "/nowhere",
                   check=False)
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        self.assertIn("/nowhere", done.stderr)
