"""`braid tune` in a machine of its own: what it finds, sets and brings back.

    client 10.20.1.1 ──veth, 2 queues── 10.20.1.2 server

Only what belongs to these devices is ever set: the group net-device.
"""
import json
import os
import re

import natives
from lab import run
from lab_test import LabTest, each
from topology import Tunnel

SETTINGS = ("tx-udp-segmentation", "tx-tcp-segmentation", "tx-tcp6-segmentation")


class Tune(LabTest):
    def setUp(self):
        super().setUp()
        self.client, self.server = self.lab.namespace("client"), self.lab.namespace("server")
        self.lab.link(self.client, "10.20.1.1/24", self.server, "10.20.1.2/24", queues=2)
        self.undo_file = os.path.join(self.lab.folder, "undo", "tune.json")

    def tune(self, *options, check=True, wrap=()):
        """"ip netns exec" mounts a /sys that shows the namespace's devices."""
        part = () if "--undo" in options else ("--only", "net-device")
        return self.client.run(*wrap, natives.braid(), "tune", *part,
                               "--undo-file", self.undo_file, *options, check=check)

    def report(self, *options, wrap=()):
        return json.loads(self.tune("--json", *options, wrap=wrap).stdout)

    def finding(self, name, *options):
        found = [one for one in self.report(*options)["findings"] if one["name"] == name]
        self.assertEqual(len(found), 1, f"{name}: {found}")
        return found[0]

    def features(self):
        text = self.client.run("ethtool", "-k", "server").stdout
        return {name: re.search(rf"^\s*{name}: (\w+)", text, re.M)[1] for name in SETTINGS}

    def steering(self, queue, value=None):
        """The RPS mask of a receive queue, after setting it if a value is given."""
        path = f"/sys/class/net/server/queues/rx-{queue}/rps_cpus"
        if value is not None:
            self.client.run("sh", "-c", f"echo {value} > {path}")
        return int(self.client.run("cat", path).stdout.replace(",", ""), 16)

    def channels(self):
        """Receive and transmit queues."""
        now = self.client.run("ethtool", "-l", "server").stdout.partition("Current")[2]
        return re.findall(r"^[RT]X:\s+(\d+)", now, re.M)

    def spoil(self):
        self.client.run("ethtool", "-K", "server", "tx-udp-segmentation", "off", "tso", "off")

    def state(self):
        return self.features(), self.steering(0), self.steering(1)

    def apply(self, *options, **more):
        return self.tune("--interface", "server", "--apply", *options, **more)

    def undo(self, *options, **more):
        return self.tune("--undo", *options, **more)

    def test_finds_without_changing(self):
        self.spoil()
        before = self.state()
        report = self.report("--interface", "server")
        self.assertEqual(self.state(), before)
        self.assertFalse(os.path.exists(self.undo_file))
        self.assertEqual(report["interfaces"], [{"name": "server", "why": "asked for"}])
        costs = {one["name"] for one in report["findings"] if one["status"] == "costs"}
        self.assertEqual(costs & {"tx-udp-segmentation", "TSO"}, {"tx-udp-segmentation", "TSO"})

    def test_sets_and_brings_back(self):
        self.spoil()
        before = self.state()
        self.apply()
        self.assertEqual(self.features(), dict.fromkeys(SETTINGS, "on"))
        self.assertEqual(os.stat(self.undo_file).st_mode & 0o777, 0o600)
        after = self.state()
        again = json.loads(self.apply("--json").stdout)
        self.assertEqual((self.state(), again["changes"]), (after, []))
        self.undo()
        self.assertEqual(self.state(), before)
        self.assertEqual(os.listdir(os.path.dirname(self.undo_file)), ["tune.json.lock"])
        self.assertIn("nothing to undo", self.undo().stdout)

    def test_queues_come_before_what_is_each_queues(self):
        if os.cpu_count() < 2:
            self.skipTest("one CPU: one worker, one queue")
        self.client.run("ethtool", "-L", "server", "rx", "1", "tx", "1")
        self.steering(0, 1)
        before = self.channels(), self.steering(0)
        self.apply()
        self.assertEqual(self.channels(), ["2", "2"])
        self.assertEqual(self.steering(0), self.steering(1))
        self.assertGreater(self.steering(1), 1)
        self.undo()
        self.assertEqual((self.channels(), self.steering(0)), before)
        self.assertFalse(os.path.exists(self.undo_file))

    def test_applying_twice_keeps_the_first_values(self):
        self.spoil()
        before = self.state()
        self.apply()
        self.client.run("ethtool", "-K", "server", "tx-udp-segmentation", "off")
        self.apply()
        self.undo()
        self.assertEqual(self.state(), before)

    @each(force=(0, 1))
    def test_what_somebody_else_has_changed_since(self, force):
        if os.cpu_count() < 2:
            self.skipTest("one CPU: there is nothing to spread packets over")
        self.steering(0, 1)
        self.apply()
        self.assertGreater(self.steering(0), 1)
        self.steering(0, 2)
        said = self.undo(*(["--force"] if force else [])).stdout
        self.assertEqual(self.steering(0), 1 if force else 2)
        self.assertEqual("somebody else" in said, not force)
        self.assertEqual(self.steering(1), 0)
        self.assertFalse(os.path.exists(self.undo_file))

    def test_refused_changes_are_told_and_change_nothing(self):
        self.spoil()
        before = self.state()
        done = self.apply(check=False, wrap=("setpriv", "--bounding-set", "-net_admin",
                                             "--inh-caps", "-net_admin"))
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stdout, r"failed +server tx-udp-segmentation .*\n.*not permitted")
        self.assertEqual(self.state(), before)
        self.assertFalse(os.path.exists(self.undo_file))

    def test_an_ordinary_user_may_look(self):
        self.spoil()
        wrap = ("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups")
        report = self.report("--interface", "server", wrap=wrap)
        self.assertEqual({one["status"] for one in report["findings"]
                          if one["name"] == "tx-udp-segmentation"}, {"costs"})
        done = self.apply(check=False, wrap=wrap)
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        self.assertIn(self.undo_file.rpartition("/")[0], done.stderr)

    def test_looks_at_the_links_of_the_configuration(self):
        tunnel = Tunnel(self.lab, machines=(self.client, self.server))
        path = os.path.join(self.lab.folder, "tune.json")
        self.assertEqual(self.report()["interfaces"], [])
        for paths in (None, [{"name": "wire", "address": "10.20.1.1"}],
                      [{"name": "wire", "interface": "server"}]):
            config = dict(tunnel.client.config)
            if paths:
                config["tunnel"] = {**config["tunnel"], "paths": paths}
            with open(path, "w", encoding="ascii") as file:
                json.dump(config, file)
            interfaces = self.report("--config", path)["interfaces"]
            self.assertEqual([one["name"] for one in interfaces], ["server"], paths)
        self.client.ip("route add default via 10.20.1.2")
        self.assertEqual(self.report()["interfaces"], [{"name": "server", "why": "default route"}])

    def test_tells_the_workers_that_the_daemon_starts(self):
        tunnel = Tunnel(self.lab, machines=(self.client, self.server)).start()
        workers = self.report("--config", tunnel.client.config_path)["workers"]
        status = tunnel.client.status()
        running = [worker["cpu"] for worker in status["workers"]]
        self.assertEqual((workers["count"], workers["cpus"]), (len(running), running))

    def test_a_damaged_undo_file(self):
        os.makedirs(os.path.dirname(self.undo_file))
        with open(os.open(self.undo_file, os.O_WRONLY | os.O_CREAT, 0o600), "w",
                  encoding="ascii") as file:
            file.write('{"version": 1')
        self.spoil()
        before = self.state()
        for action in (self.apply, self.undo):
            done = action(check=False)
            self.assertEqual(done.returncode, 1)
            self.assertIn("damaged", done.stderr)
        self.assertEqual(self.state(), before)

    def test_a_network_namespace_without_its_sys(self):
        """Files below /sys that are other devices' are neither believed nor written."""
        with self.client.entered():
            done = run(natives.braid(), "tune", "--json", "--interface", "server",
                       "--only", "net-device")
        findings = {one["name"]: one for one in json.loads(done.stdout)["findings"]}
        self.assertEqual(findings["files"]["status"], "cannot tell")
        self.assertNotIn("RPS", findings)
        self.assertIn("TSO", findings)

    def test_an_undo_without_its_sys(self):
        """Another namespace's device may have the same name and value."""
        if os.cpu_count() < 2:
            self.skipTest("one CPU: there is nothing to spread packets over")
        self.steering(0, 1)
        self.apply()
        after = self.state()
        with self.client.entered():
            done = run(natives.braid(), "tune", "--undo", "--undo-file", self.undo_file,
                       check=False)
        self.assertEqual(done.returncode, 1)
        self.assertIn("another network namespace", done.stderr)
        self.assertEqual(self.state(), after)
        self.undo()
        self.assertEqual(self.steering(0), 1)

    def test_options_that_make_no_sense(self):
        for options in (("--apply", "--undo"), ("--power",), ("--force",), ("--only", "speed"),
                        ("--undo", "--only", "cpu"), ("--undo", "--interface", "server"),
                        ("--undo", "--config", "tune.json")):
            self.assertEqual(self.tune(*options, check=False).returncode, 2, options)
        done = self.tune("--interface", "nowhere", check=False)
        self.assertEqual(done.returncode, 1)
        self.assertIn('"nowhere"', done.stderr)
