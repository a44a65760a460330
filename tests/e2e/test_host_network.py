"""What braid changes of the machine around the tunnel, and that any end is followed by what was there
before. The machines are drawn in machines.py.
"""
import os
import time

import natives
from daemon import Daemon, merged
from lab import eventually
from machines import DIRECT, FAR, SERVER, Machines, seen_as
from traffic import ping


class HostNetwork(Machines):
    # --- Routes ---

    def test_everything_goes_through_the_tunnel_and_back_again(self):
        self.set_up()
        before = {ns: self.state(ns) for ns in (self.client_ns, self.server_ns)}
        for family in (4, 6):
            self.assertEqual(seen_as(self.client_ns, FAR[family]), DIRECT[family])
        self.tunnel.start()
        for family in (4, 6):
            self.eventually_seen_as(self.client_ns, FAR[family], SERVER[family])
        self.assertEqual(seen_as(self.client_ns, "10.50.1.2"), "10.50.1.1", "the LAN stays near")
        self.assertEqual(seen_as(self.client_ns, "fd50:1::2"), "fd50:1::1")
        for daemon in self.tunnel.daemons:
            self.assertEqual(daemon.stop(), [])
        for ns, state in before.items():
            self.assert_as_before(state, ns)

    def forwards(self):
        return self.client_ns.run(
            "cat", "/proc/sys/net/ipv4/conf/host/forwarding").stdout.strip() == "1"

    def test_hosts_behind_a_gateway_use_it(self):
        self.set_up(client={"network": {"nat": [{"source": "10.50.1.0/24", "out": "braid0"}]}})
        before = self.state(self.client_ns)
        self.tunnel.start()
        self.eventually_seen_as(self.host, FAR[4], SERVER[4])
        # Where nothing was forwarded before, what is no tunnel's still is not.
        self.provider.ip("route add 10.50.1.0/24 via 10.20.1.1")
        self.assertEqual(ping(self.provider, "10.50.1.2", wait=1).received, 0)
        # Whoever turns it off: it is on again at once. The look that finds what was not told comes
        # every five seconds.
        for _ in range(4):
            self.client_ns.sysctl("net.ipv4.conf.host.forwarding", 0)
            eventually(self.forwards, 2, "it forwards again")
        self.assertEqual(self.client.stop(), [])
        self.assert_as_before(before, self.client_ns)

    def test_what_is_excluded_and_included_by_name(self):
        self.set_up(client={"network": {"routes": {"default": False, "include": ["10.40.0.0/16"],
                                                   "exclude": ["lan", "10.40.9.0/24"]}}})
        self.far.ip("addr add 10.40.9.2/24 dev provider")
        self.provider.ip("addr add 10.40.9.254/24 dev far")
        self.tunnel.start()
        self.eventually_seen_as(self.client_ns, FAR[4], SERVER[4])
        self.assertEqual(seen_as(self.client_ns, "10.40.9.2"), DIRECT[4])
        self.assertEqual(seen_as(self.client_ns, FAR[6]), DIRECT[6])

    def test_routes_that_a_network_injects_draw_nothing_out(self):
        self.set_up()
        self.tunnel.start()
        self.eventually_seen_as(self.client_ns, FAR[4], SERVER[4])
        for route in ("0.0.0.0/1", "128.0.0.0/1", "10.40.1.0/24", "10.40.1.2/32"):
            self.client_ns.ip(f"route add {route} via 10.20.1.254")
        for route in ("::/1", "8000::/1", "fd40::/64", "fd40::2/128"):
            self.client_ns.ip(f"route add {route} via fd20:1::fe")
        # A second default route before the one that there is.
        self.client_ns.ip("route prepend default via 10.50.1.2 dev host")
        time.sleep(0.5)
        for family in (4, 6):
            self.assertEqual(seen_as(self.client_ns, FAR[family]), SERVER[family])

    def test_a_new_lan_stays_out_within_a_second(self):
        self.set_up()
        self.tunnel.start()
        self.eventually_seen_as(self.client_ns, FAR[4], SERVER[4])
        self.host.ip("addr add 10.51.1.2/24 dev client")
        self.client_ns.ip("addr add 10.51.1.1/24 dev host")
        eventually(lambda: seen_as(self.client_ns, "10.51.1.2", 0.3) == "10.51.1.1", 1,
                   "the new network is near")
        self.client_ns.ip("addr del 10.51.1.1/24 dev host")
        eventually(lambda: "10.51.1.0/24" not in self.client_ns.ip("route show table all").stdout,
                   1, "and no longer")

    # --- Probing the server ---

    def test_a_server_that_never_answers_cuts_nobody_off(self):
        self.set_up(client={"network": {"dns": {"servers": ["10.77.0.1"]}}})
        before = self.state(self.client_ns)
        self.client.start()
        time.sleep(6)  # longer than braid waits until it looks again
        for family in (4, 6):
            self.assertEqual(seen_as(self.client_ns, FAR[family]), DIRECT[family])
        during = self.state(self.client_ns)
        for name in ("rules", "nftables", "resolv.conf"):
            self.assertEqual(during[name], before[name])
        # Once it does, everything goes its way, and stays so when it is silent again: what was to
        # be inside is not to be seen outside.
        self.server.start()
        self.tunnel.wait()
        for family in (4, 6):
            self.eventually_seen_as(self.client_ns, FAR[family], SERVER[family])
        self.server.kill()
        self.assertIsNone(seen_as(self.client_ns, FAR[4], 1))

    def test_with_the_kill_switch_a_server_that_never_answers_does(self):
        self.set_up(client={"network": {"kill_switch": True,
                                        "dns": {"servers": ["10.77.0.1"]}}})
        self.client.start()
        for family in (4, 6):
            self.assertIsNone(seen_as(self.client_ns, FAR[family], 1))
        self.assertIn("nameserver 10.77.0.1", self.state(self.client_ns)["resolv.conf"])
        # braid's own datagrams leave.
        self.server.start()
        self.tunnel.wait()
        for family in (4, 6):
            self.eventually_seen_as(self.client_ns, FAR[family], SERVER[family])

    # --- DNS ---

    def test_names_are_looked_up_inside_and_afterwards_outside(self):
        self.set_up(client={"network": {"dns": {"servers": ["10.77.0.1"],
                                                "domains": ["corp.example"]}}})
        path = os.path.join(self.etc, "resolv.conf")
        os.remove(path)
        os.symlink("resolv.real", path)
        with open(os.path.join(self.etc, "resolv.real"), "w", encoding="ascii") as file:
            file.write("nameserver 10.20.1.254\n")
        self.tunnel.start()

        def text():
            with open(path, encoding="ascii") as file:
                return file.read()
        eventually(lambda: "nameserver 10.77.0.1\nsearch corp.example\n" in text(), 3)
        self.assertFalse(os.path.islink(path))
        self.assertEqual(self.client.stop(), [])
        self.assertEqual(os.readlink(path), "resolv.real")
        self.assertEqual(text(), "nameserver 10.20.1.254\n")

    # --- Ends of every kind ---

    def test_after_a_kill_cleanup_brings_all_of_it_back(self):
        self.set_up(client={"network": {"dns": {"servers": ["10.77.0.1"]},
                                        "nat": [{"source": "10.50.1.0/24", "out": "braid0"}]}})
        before = self.state(self.client_ns)
        self.tunnel.start()
        self.eventually_seen_as(self.client_ns, FAR[4], SERVER[4])
        self.client.kill()
        eventually(lambda: "braid0" not in self.client_ns.devices(), 2)
        self.assertNotEqual(self.state(self.client_ns), before)
        self.assertIn("taken back: ", self.cleanup())
        self.assert_as_before(before, self.client_ns)
        self.assertEqual(self.cleanup(), "", "nothing is left to be done")

    def test_a_start_over_leftovers_works(self):
        self.set_up()
        before = self.state(self.client_ns)
        self.tunnel.start()
        for _ in range(2):
            self.eventually_seen_as(self.client_ns, FAR[4], SERVER[4])
            self.client.kill()
            self.client.start()
        self.eventually_seen_as(self.client_ns, FAR[4], SERVER[4])
        self.assertEqual(self.client.stop(), [])
        self.assert_as_before(before, self.client_ns)

    def test_what_others_made_is_never_touched(self):
        self.set_up()
        self.client_ns.nft("""
            table inet braid_mine {
                chain output { type filter hook output priority 0; accept; }
            }
            table ip nat {
                chain postrouting { type nat hook postrouting priority 100; }
            }""")
        # Like braid's own, but for who made it.
        self.client_ns.ip("rule add priority 31000 not fwmark 0xb7a1 lookup 47009")
        self.client_ns.ip("route add throw 10.50.1.0/24 table 47010")
        with open(os.path.join(self.etc, "resolv.conf.new"), "w", encoding="ascii") as file:
            file.write("mine\n")
        before = self.state(self.client_ns)
        self.tunnel.start()
        self.eventually_seen_as(self.client_ns, FAR[4], SERVER[4])
        self.client.kill()
        eventually(lambda: "braid0" not in self.client_ns.devices(), 2)
        self.cleanup()
        self.assert_as_before(before, self.client_ns)

    def test_what_others_take_away_comes_back(self):
        self.set_up(client={"network": {"kill_switch": True}})
        before = self.state(self.client_ns)
        self.tunnel.start()
        self.eventually_seen_as(self.client_ns, FAR[4], SERVER[4])
        wanted = self.state(self.client_ns)
        self.client_ns.run("nft", "flush", "ruleset")
        self.client_ns.ip("rule del priority 32000")
        self.client_ns.ip("route flush table 47009")
        eventually(lambda: self.state(self.client_ns) == wanted, 8, "all of it is there again")
        # At once: the look that finds what was not told comes every five seconds.
        for change in ("flush ruleset", "flush chain inet braid_kill_switch output",
                       "delete table inet braid_kill_switch",
                       "insert rule inet braid_kill_switch output accept") * 2:
            self.client_ns.run("nft", change)
            eventually(lambda: self.state(self.client_ns)["nftables"] == wanted["nftables"], 2,
                       f"{change} is put right")
        self.assertEqual(self.client.stop(), [])
        self.cleanup("--all")
        self.assert_as_before(before, self.client_ns)

    def test_two_daemons_forward_by_one_device(self):
        self.set_up(client={"network": {"nat": [{"source": "10.50.1.0/24", "out": "braid0"}]}})
        before = self.state(self.client_ns)
        self.tunnel.start()
        # Another tunnel of this machine, for the same hosts; it never comes up.
        other = Daemon(self.client_ns, "other", merged(self.client.config, {
            "network": {"device": "braid1", "addresses": ["10.78.0.2/24"], "routes": None,
                        "nat": [{"source": "10.50.1.0/24", "out": "braid1"}]},
            "security": {"state_dir": os.path.join(self.lab.folder, "other.state")},
            "control": {"socket": os.path.join(self.lab.folder, "other.sock")}}),
            self.client.wrap).start()
        self.eventually_seen_as(self.host, FAR[4], SERVER[4])

        # The one that has turned it on ends; the other one needs it, and has it again.
        for daemon, left in ((self.client, other), (other, self.client)):
            self.assertEqual(daemon.stop(), [])
            eventually(self.forwards, 2, f"{left.name} forwards")
            daemon.start()
        self.assertEqual(self.client.stop(), [])
        self.assertEqual(other.stop(), [])
        self.assert_as_before(before, self.client_ns)

    def test_a_second_uplink_with_a_strict_filter_works(self):
        self.set_up(client={"tunnel": {"paths": [
            {"name": "one", "interface": "provider"}, {"name": "two", "interface": "uplink2"}]}})
        self.add_uplink2()
        self.client_ns.sysctl("net.ipv4.conf.uplink2.rp_filter", 1)

        def asked_over_uplink2():
            """As braid asks: how many answers came, and how many the filter has refused."""
            before = self.client_ns.tcp_ext("IPReversePathFilter")
            pings = ping(self.client_ns, SERVER[4], wait=1,
                         options=("-I", "uplink2", "-m", 0xb7a1))
            return pings.received, self.client_ns.tcp_ext("IPReversePathFilter") - before
        self.assertEqual(asked_over_uplink2(), (0, 3), "the way back is another")
        before = self.state(self.client_ns)
        self.tunnel.start()
        eventually(lambda: all(path["state"] == "up" for path in self.client.peer()["paths"]), 5,
                   "both paths are up")
        self.eventually_seen_as(self.client_ns, FAR[4], SERVER[4])
        self.assertEqual(asked_over_uplink2(), (3, 0))
        self.assertEqual(self.client.stop(), [])
        self.assert_as_before(before, self.client_ns)
        self.assertEqual(asked_over_uplink2(), (0, 3), "as before")

    def test_a_cleanup_beside_a_daemon_leaves_it_alone(self):
        self.set_up()
        self.tunnel.start()
        self.eventually_seen_as(self.client_ns, FAR[4], SERVER[4])
        self.assertIn("left alone", self.cleanup())
        self.assertEqual(seen_as(self.client_ns, FAR[4]), SERVER[4])

    # --- The kill switch ---

    def test_nothing_leaves_beside_the_tunnel_with_the_kill_switch(self):
        self.set_up(client={"network": {"kill_switch": True}})
        before = self.state(self.client_ns)
        self.tunnel.start()
        self.eventually_seen_as(self.client_ns, FAR[4], SERVER[4])
        self.client.kill()
        eventually(lambda: "braid0" not in self.client_ns.devices(), 2)
        for family in (4, 6):
            self.assertIsNone(seen_as(self.client_ns, FAR[family], 1), "while braid is dead")
        self.assertIn("the kill switch stays on", self.cleanup())
        for family in (4, 6):
            self.assertIsNone(seen_as(self.client_ns, FAR[family], 1), "and after a clean-up")
        self.assertIn("the kill switch is off", self.cleanup("--all"))
        self.assert_as_before(before, self.client_ns)

    def kill_switch(self, verb, check=True):
        return self.client_ns.run(natives.braid(), "kill-switch", verb, "--state-dir",
                                  self.client.config["security"]["state_dir"], check=check)

    def test_the_kill_switch_is_loaded_again_at_boot(self):
        self.set_up(client={"network": {"kill_switch": True}})
        self.assertEqual(self.kill_switch("load").stderr, "")
        self.assertEqual(self.kill_switch("status").stdout, "off\n")
        self.assertEqual(seen_as(self.client_ns, FAR[4]), DIRECT[4], "nothing was kept yet")
        self.tunnel.start()
        self.assertEqual(self.kill_switch("status").stdout, "on: nothing leaves beside braid0\n")
        self.client.kill()
        eventually(lambda: "braid0" not in self.client_ns.devices(), 2)
        # A restart of the machine leaves of the tables nothing, and of the file all.
        self.client_ns.run("nft", "flush", "ruleset")
        told = self.kill_switch("status", check=False)
        self.assertEqual((told.returncode, told.stdout[:8]), (1, "missing:"))
        self.assertEqual(self.kill_switch("load").stderr, "")
        for family in (4, 6):
            self.assertIsNone(seen_as(self.client_ns, FAR[family], 1))
        self.client.start()
        self.eventually_seen_as(self.client_ns, FAR[4], SERVER[4])

    def test_a_device_that_no_tunnel_has_any_more_is_released(self):
        self.set_up(client={"network": {"kill_switch": True}})
        self.tunnel.start()
        self.client.kill()
        self.cleanup()
        self.client.config["network"]["device"] = "braid9"
        self.client.start()
        told = self.kill_switch("status")
        self.assertEqual(told.stdout, "on: nothing leaves beside braid0, braid9\n")
        self.assertIn("there is no braid0 now", told.stderr)
        self.assertNotIn("no braid9", told.stderr)
        self.assertIn('"braid0"', self.client_ns.run("nft", "list", "ruleset").stdout)
        folder = self.client.config["security"]["state_dir"]

        def release(device):
            return self.client_ns.run(natives.braid(), "kill-switch", "release", device,
                                      "--state-dir", folder, check=False)
        self.assertEqual(release("braid0").stdout, "nothing leaves by braid0 any more\n")
        self.assertNotIn('"braid0"', self.client_ns.run("nft", "list", "ruleset").stdout)
        self.assertEqual(self.kill_switch("status").stderr, "")
        self.assertIn("it is not on for braid0", release("braid0").stderr)
        done = release("braid9")
        self.assertEqual(done.returncode, 1)
        self.assertIn("braid cleanup --all", done.stderr)
        self.eventually_seen_as(self.client_ns, FAR[4], SERVER[4])

    def test_the_kill_switch_comes_back_while_the_tunnel_cannot(self):
        self.set_up(client={"network": {"kill_switch": True, "routes": {"default": True}}})
        self.tunnel.start()
        self.eventually_seen_as(self.client_ns, FAR[4], SERVER[4])

        def flushed_and_back():
            self.client_ns.run("nft", "flush", "ruleset")
            eventually(lambda: self.kill_switch("status", check=False).returncode == 0, 10,
                       "it is back")
        self.client_ns.sysctl("net.ipv6.conf.braid0.disable_ipv6", 1)
        flushed_and_back()
        self.client_ns.ip("link set braid0 down")
        flushed_and_back()
        self.client_ns.ip("link set braid0 up")
        self.client_ns.sysctl("net.ipv6.conf.braid0.disable_ipv6", 0)

    def test_a_clean_up_that_cannot_be_says_so(self):
        self.set_up()

        def cleanup(*prefix, folder):
            return self.client_ns.run(*prefix, natives.braid(), "cleanup", "--state-dir", folder,
                                      check=False)
        missing = os.path.join(self.lab.folder, "mistyped")
        done = cleanup(folder=missing)
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        self.assertIn(missing, done.stderr)
        private = os.path.join(self.lab.folder, "private")
        os.mkdir(private, 0o700)
        done = cleanup("setpriv", "--reuid=65534", "--clear-groups", folder=private)
        self.assertEqual(done.returncode, 1)
        self.assertIn("ermission denied", done.stderr)

    def test_what_somebody_has_changed_is_not_said_to_be_taken_back(self):
        self.set_up(client={"network": {"dns": {"servers": ["10.77.0.1"]}}})
        self.tunnel.start()
        path = os.path.join(self.etc, "resolv.conf")

        def contents():
            with open(path, encoding="ascii") as file:
                return file.read()
        eventually(lambda: "10.77.0.1" in contents(), 10, "it is braid's")
        self.client.kill()
        with open(path, "w", encoding="ascii") as file:
            file.write("nameserver 192.0.2.9\n")
        done = self.client_ns.run(*self.own_files, natives.braid(), "cleanup", "--state-dir",
                                  self.client.config["security"]["state_dir"])
        self.assertNotIn("taken back: /etc/resolv.conf", done.stdout)
        self.assertEqual(done.stderr.count("was changed by somebody else since"), 1)

    def test_a_damaged_kill_switch_shuts_everything_in(self):
        self.set_up(client={"network": {"kill_switch": True}})
        self.tunnel.start()
        self.client.kill()
        self.client_ns.run("nft", "flush", "ruleset")
        with open(os.path.join(self.client.config["security"]["state_dir"], "kill-switch.json"),
                  "w", encoding="ascii") as file:
            file.write('{"version":')
        told = self.kill_switch("load", check=False)
        self.assertEqual(told.returncode, 1)
        self.assertIn("kill-switch.json: is damaged", told.stderr)
        self.assertIn("nothing at all leaves", told.stderr)
        for family in (4, 6):
            self.assertIsNone(seen_as(self.client_ns, FAR[family], 1))
        self.client.start()
        self.eventually_seen_as(self.client_ns, FAR[4], SERVER[4])


class FaultsOfBringUp(Machines):
    """Killed at every step, and each step failing: of rtnetlink and nftables, of settings, of the
    journal and of resolv.conf."""

    FULL = {"network": {"dns": {"servers": ["10.77.0.1"]},
                        "nat": [{"source": "10.50.1.0/24", "out": "braid0"},
                                {"source": "fd50:1::/64", "out": "braid0"}]}}

    def run_with(self, fault):
        """Brings it up, if that goes, and ends it. Returns its exit code, and how many steps there
        were until it was up, and in all."""
        count = os.path.join(self.lab.folder, "count")
        self.client.wrap = [*self.own_wrap, "env", f"LD_PRELOAD={natives.path('libfault_at.so')}",
                            f"BRAID_TEST_FAULT={fault}", f"BRAID_TEST_FAULT_COUNT={count}"]
        self.client.start(ready=False)
        process = self.client.process

        def is_up_or_ended():
            return process.poll() is not None or "braid_braid0" in self.client_ns.run(
                "nft", "list", "tables").stdout and self.client.is_established()

        def counted():
            with open(count, encoding="ascii") as file:
                return int(file.read())
        eventually(is_up_or_ended, 10, "it is up or has ended")
        until_up = counted()
        code = process.stop()
        self.client.kill()
        eventually(lambda: "braid0" not in self.client_ns.devices(), 2)
        return code, until_up, counted()

    def prepare(self):
        self.set_up(client=self.FULL)
        for name in ("default", "host"):
            self.client_ns.sysctl(f"net.ipv6.conf.{name}.accept_ra", 1)
        self.client.guarded = False
        self.own_wrap = self.client.wrap
        self.before = self.state(self.client_ns)
        self.server.start()

    def fail_at_every_step(self, fault):
        self.prepare()
        # More than there are, so that all are counted and none fails.
        code, until_up, in_all = self.run_with(f"{fault}:100000")
        self.assertEqual(code, 0)
        self.assert_as_before(self.before, self.client_ns)
        self.assertGreater(until_up, 20)
        self.assertGreater(in_all, until_up, "taking back takes steps, too")
        for step in range(1, in_all + 1):
            self.run_with(f"{fault}:{step}")
            self.cleanup()
            self.assert_as_before(self.before, self.client_ns, f"after {fault} at step {step}")

    def test_killed_at_every_step(self):
        self.fail_at_every_step("kill")

    def test_every_step_fails_once(self):
        self.fail_at_every_step("fail")
