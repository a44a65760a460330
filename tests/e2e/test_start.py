"""A daemon that cannot start says why in one line, exits with 1 and leaves nothing behind.

    client 10.20.1.1 ──veth── 10.20.1.2 server
"""
import json
import os
import socket

import natives
from lab import eventually, run
from lab_test import LabTest, each
from test_offloads import without_capabilities
from topology import Tunnel


class Start(LabTest):
    beside_others = True

    def setUp(self):
        super().setUp()
        self.tunnel = Tunnel(self.lab)

    def assert_refuses(self, daemon, *words, device="braid0"):
        before = daemon.ns.devices()
        daemon.start(ready=False)
        self.assertEqual(daemon.process.wait(10), 1, daemon.log())
        said = daemon.log()
        daemon.process = None
        lines = [line for line in said.splitlines() if line]
        self.assertEqual(len(lines), 1, said)
        for word in words:
            self.assertIn(word.lower(), lines[0].lower())
        eventually(lambda: daemon.ns.devices() == before, 1, "the device is gone")
        self.assertFalse(os.path.exists(daemon.socket_path))

    @each(mode=(0o644, 0o640, 0o604))
    def test_a_key_that_others_can_read(self, mode):
        os.chmod(self.tunnel.branch.file, mode)
        self.assert_refuses(self.tunnel.client, "branch.key", f"{mode:04o}", "chmod 600")

    def test_a_key_that_is_not_there(self):
        os.unlink(self.tunnel.branch.file)
        self.assert_refuses(self.tunnel.client, "branch.key")

    def test_a_key_that_is_none(self):
        with open(self.tunnel.branch.file, "w", encoding="ascii") as file:
            file.write("not a key\n")
        self.assert_refuses(self.tunnel.client, "branch.key", "base64")

    @each(side=("client", "server"))
    def test_without_the_right_to_make_devices(self, side):
        daemon = getattr(self.tunnel, side)
        daemon.wrap = list(without_capabilities("net_admin"))
        self.assert_refuses(daemon, "CAP_NET_ADMIN")

    @each(family=(4, 6))
    def test_a_busy_port(self, family):
        kind = {4: socket.AF_INET, 6: socket.AF_INET6}[family]
        with self.tunnel.server_ns.socket(kind, socket.SOCK_DGRAM) as other:
            if family == 6:
                other.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            other.bind(("", 7700))
            self.assert_refuses(self.tunnel.server, "7700", "in use")

    def test_a_second_server_on_the_same_port(self):
        """Not even one of the same user, whose sockets would share the port."""
        self.tunnel.server.start()
        second = Tunnel(self.lab, machines=(self.tunnel.client_ns, self.tunnel.server_ns)).server
        second.name = "second"
        second.socket_path += "2"
        second.config["control"]["socket"] = second.socket_path
        second.config["network"]["device"] = "braid1"
        second.config["network"]["addresses"] = ["10.99.0.1/24"]
        self.assert_refuses(second, "7700", "in use")

    def test_an_address_that_is_not_of_this_machine(self):
        self.tunnel.server.config["tunnel"]["listen"] = [{"address": "192.0.2.1", "port": 7700}]
        self.assert_refuses(self.tunnel.server, "192.0.2.1", "/tunnel/listen/0")
        self.tunnel.client.config["tunnel"]["paths"] = [{"name": "a", "address": "192.0.2.7"}]
        self.assert_refuses(self.tunnel.client, "192.0.2.7", "/tunnel/paths/0")

    def test_an_interface_that_is_not_of_this_machine(self):
        self.tunnel.client.config["tunnel"]["paths"] = [{"name": "a", "interface": "wwan7"}]
        self.assert_refuses(self.tunnel.client, "wwan7", "/tunnel/paths/0")

    def test_a_device_that_exists(self):
        self.tunnel.client.config["network"]["device"] = "server"  # the wire itself
        self.assert_refuses(self.tunnel.client, '"server"', "exists")
        self.tunnel.client_ns.ip("tuntap add dev braid0 mode tun")
        self.tunnel.client.config["network"]["device"] = "braid0"
        self.assert_refuses(self.tunnel.client, '"braid0"', "exists")

    def test_a_control_socket_that_is_something_else(self):
        path = self.tunnel.client.socket_path
        with open(path, "w", encoding="ascii") as file:
            file.write("precious")
        self.tunnel.client.start(ready=False)
        self.assertEqual(self.tunnel.client.process.wait(10), 1)
        self.assertIn(path, self.tunnel.client.log())
        self.tunnel.client.process = None
        with open(path, encoding="ascii") as file:
            self.assertEqual(file.read(), "precious")
        eventually(lambda: "braid0" not in self.tunnel.client_ns.devices(), 1, "the device is gone")

    def test_the_socket_of_another_daemon(self):
        self.tunnel.server.start()
        self.tunnel.client.config["control"]["socket"] = self.tunnel.server.socket_path
        self.assert_refuses(self.tunnel.client, self.tunnel.server.socket_path)
        self.assertIsNotNone(self.tunnel.server.try_status())

    def test_without_a_configuration(self):
        done = run(natives.braid(), "run", "--config", self.lab.folder + "/none.json", check=False)
        self.assertEqual((done.returncode, done.stderr.count("\n")), (1, 1))


class Check(LabTest):
    beside_others = True

    def check(self, config, name="config.json"):
        path = os.path.join(self.lab.folder, name)
        with open(path, "w", encoding="utf-8") as file:
            file.write(config if isinstance(config, str) else json.dumps(config))
        return run(natives.braid(), "check", "--config", path, check=False), path

    def test_good_files(self):
        tunnel = Tunnel(self.lab)
        for daemon in tunnel.daemons:
            done, path = self.check(daemon.config)
            self.assertEqual((done.returncode, done.stderr), (0, ""))
            self.assertIn(path, done.stdout)

    def test_every_mistake_at_once(self):
        done, path = self.check({
            "mode": "serf", "speed": 9,
            "network": {"device": "a name far too long", "addresses": ["10.77.0.1/33", "x"],
                        "mtu": 100},
            "security": {"private_key_file": "/nowhere/key"},
            "tunnel": {"listen": [{"address": "0.0.0.0", "port": 77000}],
                       "peers": [{"name": "a", "public_key": "short", "allowed_ips": ["10/8"]}]},
        })
        self.assertEqual(done.returncode, 1)
        for pointer in ("/mode", "/speed", "/network/device", "/network/addresses/0",
                        "/network/addresses/1", "/network/mtu", "/security/private_key_file",
                        "/tunnel/listen/0/port", "/tunnel/peers/0/public_key",
                        "/tunnel/peers/0/allowed_ips/0"):
            self.assertIn(f"{path}: {pointer}: ", done.stderr)

    def test_yaml_and_syntax(self):
        tunnel = Tunnel(self.lab)
        config = tunnel.server.config
        text = "\n".join(f"{name}: {json.dumps(value)}" for name, value in config.items())
        done, _ = self.check(text + "\n", "config.yaml")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        for name, broken in (("a.json", '{"mode": "server",\n "x" 7}'), ("a.yaml", "a: [1\nb: }")):
            done, path = self.check(broken, name)
            self.assertEqual(done.returncode, 1)
            self.assertRegex(done.stderr, rf"^{path}:\d+:\d+: ")
