"""What braid init writes is a tunnel: two machines, and two commands on each.

    client 10.20.1.1 ──veth── 10.20.1.2 server
"""
import os
import pty
import re
import signal
import stat
import subprocess

import natives
from lab import eventually, run
from lab_test import LabTest
from topology import INNER, OUTER
from traffic import ping


class Init(LabTest):
    beside_others = True

    def setUp(self):
        super().setUp()
        self.client, self.server = self.lab.namespace("client"), self.lab.namespace("server")
        self.lab.link(self.client, "10.20.1.1/24 fd20:1::1/64",
                      self.server, "10.20.1.2/24 fd20:1::2/64")
        self.here = os.path.join(self.lab.folder, "here")
        self.there = os.path.join(self.lab.folder, "there")

    def init(self, ns, *arguments, check=True):
        return ns.run(natives.braid(), "init", *arguments, check=check)

    def copy(self, said, to):
        """Does what the output says, but for the other machine being another."""
        command = re.search(r"^ +(tar -C .*) \| ssh", said, re.MULTILINE)[1]
        os.makedirs(to)
        run("sh", "-c", f"{command} | tar -C {to} -x")

    def start(self, ns, name, config):
        """Both ends of a tunnel are on one machine here, but for their networks."""
        socket = os.path.join(self.lab.folder, name + ".sock")
        process = ns.start(name, natives.braid(), "run", "--config", config, environment={
            "BRAID_CONTROL__SOCKET": socket,
            "BRAID_SECURITY__STATE_DIR": os.path.join(self.lab.folder, name + ".state")})
        self.addCleanup(process.stop, signal.SIGTERM)
        eventually(lambda: os.path.exists(socket), what=f"{name} runs: {process.err()}")
        return socket

    def bring_up(self, server_config, client_config):
        self.start(self.server, "server", server_config)
        self.connect(client_config)

    def connect(self, client_config):
        socket = self.start(self.client, "client", client_config)
        eventually(lambda: '"established": true' in run(
            natives.braid(), "status", "--json", "--socket", socket).stdout,
            what="the tunnel is established")
        for family in 4, 6:
            self.assertEqual(ping(self.client, INNER[family][1]).received, 3)

    def assert_good(self, *configs):
        for config in configs:
            done = run(natives.braid(), "check", "--config", config)
            self.assertEqual((done.stdout, done.stderr), (f"{config}: ok\n", ""))

    def assert_private(self, folder):
        for path, _, names in os.walk(folder):
            for name in names:
                mode = stat.S_IMODE(os.stat(os.path.join(path, name)).st_mode)
                self.assertEqual(mode, 0o644 if name.endswith(".yaml") else 0o600, name)

    def test_a_server_and_what_its_client_needs(self):
        done = self.init(self.server, "server", "--dir", self.here, "--endpoint", OUTER[4][1],
                         "--name", "laptop")
        self.assertEqual(done.stderr, "")
        self.assert_private(self.here)
        self.copy(done.stdout, self.there)
        server, client = f"{self.here}/server.yaml", f"{self.there}/client.yaml"
        self.assert_good(server, client)
        self.assertIn(f"braid run --config {server}\n", done.stdout)
        self.assertIn("systemctl enable --now braid@client):", " ".join(done.stdout.split()))
        self.bring_up(server, client)

    def test_a_client_and_what_its_server_needs(self):
        done = self.init(self.client, "client", "--dir", self.here, "--endpoint",
                         f"[{OUTER[6][1]}]:9000")
        self.copy(done.stdout, self.there)
        server, client = f"{self.there}/server.yaml", f"{self.here}/client.yaml"
        self.assert_good(server, client)
        self.bring_up(server, client)

    def test_a_further_client(self):
        self.init(self.server, "server", "--dir", self.here, "--endpoint", OUTER[4][1])
        server = f"{self.here}/server.yaml"
        os.chmod(server, 0o640)
        socket = self.start(self.server, "server", server)
        done = self.init(self.server, "client", "--server-config", server, "--name", "second")
        self.assertEqual(stat.S_IMODE(os.stat(server).st_mode), 0o640)
        self.copy(done.stdout, self.there)
        client = f"{self.there}/client.yaml"
        self.assert_good(server, client)
        with open(client, encoding="ascii") as file:
            self.assertIn("10.77.0.3/24", file.read())
        self.assertRegex(done.stdout, r"\n +braid reload\n")
        run(natives.braid(), "reload", "--socket", socket)
        self.connect(client)
        # The same name again changes nothing.
        with open(server, encoding="ascii") as file:
            before = file.read()
        again = self.init(self.server, "client", "--server-config", server, "--name", "second",
                          check=False)
        self.assertEqual(again.returncode, 1)
        self.assertIn("choose another --name", again.stderr)
        with open(server, encoding="ascii") as file:
            self.assertEqual(file.read(), before)

    def test_a_further_client_of_a_server_whose_files_are_anothers(self):
        """The configuration is named without its extension, and is a link."""
        self.init(self.server, "server", "--dir", self.here, "--endpoint", OUTER[4][1])
        server, elsewhere = f"{self.here}/server.yaml", f"{self.lab.folder}/kept.yaml"
        os.rename(server, elsewhere)
        os.symlink(elsewhere, server)
        os.chown(f"{self.here}/server.key", 65534, 65533)
        os.setxattr(elsewhere, "user.note", b"theirs")
        self.init(self.server, "client", "--server-config", f"{self.here}/server",
                  "--name", "second")
        self.assertEqual(os.readlink(server), elsewhere)
        with open(elsewhere, encoding="ascii") as file:
            self.assertIn("second", file.read())
        self.assertEqual(os.getxattr(elsewhere, "user.note"), b"theirs")
        psk = os.stat(f"{self.here}/second.psk")
        self.assertEqual((psk.st_uid, psk.st_gid, stat.S_IMODE(psk.st_mode)),
                         (65534, 65533, 0o600))
        self.assertTrue(os.path.exists(f"{self.here}/clients/second/client.yaml"))

    def test_what_is_brought_to_another_machine_replaces_nothing(self):
        done = self.init(self.server, "server", "--dir", self.here, "--endpoint", OUTER[4][1])
        pack, unpack = re.search(r"^ +(tar -C .*) \| ssh .* && (tar -C .*)'$", done.stdout,
                                 re.MULTILINE).groups()
        os.makedirs(self.there)
        with open(f"{self.there}/client.key", "w", encoding="ascii") as file:
            file.write("theirs\n")
        unpack = unpack.replace("/etc/braid", self.there)
        self.assertNotEqual(run("sh", "-c", f"{pack} | {unpack}", check=False).returncode, 0)
        with open(f"{self.there}/client.key", encoding="ascii") as file:
            self.assertEqual(file.read(), "theirs\n")

    def test_everything_goes_through_the_tunnel(self):
        self.client.ip("route add default via 10.20.1.2")
        far = self.lab.namespace("far")
        self.lab.link(self.server, "198.51.100.1/24", far, "198.51.100.2/24", name="wan")
        self.server.ip("route add default via 198.51.100.2")
        done = self.init(self.server, "server", "--dir", self.here, "--endpoint", OUTER[4][1],
                         "--default-route", "--kill-switch")
        self.copy(done.stdout, self.there)
        server, client = f"{self.here}/server.yaml", f"{self.there}/client.yaml"
        self.assert_good(server, client)
        with open(server, encoding="ascii") as file:
            self.assertIn('out: "wan"', file.read())
        self.bring_up(server, client)
        eventually(lambda: "dev braid0" in self.client.ip("route get 198.51.100.2").stdout,
                   what="the default route leads into the tunnel")
        # The far machine knows no way to inner addresses: what comes has the server's.
        self.assertEqual(ping(self.client, "198.51.100.2").received, 3)

    def test_nothing_that_exists_is_touched(self):
        os.makedirs(self.here)
        with open(f"{self.here}/server.yaml", "w", encoding="ascii") as file:
            file.write("theirs\n")
        done = self.init(self.server, "server", "--dir", self.here, "--endpoint", "192.0.2.1",
                         check=False)
        self.assertEqual(done.returncode, 1)
        self.assertEqual(done.stderr.count("\n"), 1)
        self.assertIn(f"{self.here}/server.yaml: exists already", done.stderr)
        self.assertEqual(os.listdir(self.here), ["server.yaml"])

    def test_the_inner_network_is_none_of_the_machines(self):
        self.lab.link(self.server, "10.77.0.20/16", self.lab.namespace("lan"), "10.77.0.21/16")
        self.init(self.server, "server", "--dir", self.here, "--endpoint", "192.0.2.1")
        with open(f"{self.here}/server.yaml", encoding="ascii") as file:
            self.assertIn("10.78.0.1/24", file.read())

    def test_the_machines_own_address_is_found_and_told(self):
        self.server.ip("route add default via 10.20.1.1")
        done = self.init(self.server, "server", "--dir", self.here)
        self.assertIn("at 10.20.1.2:7700, the address of client", " ".join(done.stdout.split()))
        self.assertIn("no public one", " ".join(done.stdout.split()))

    def test_mistakes_are_told_on_a_line(self):
        for arguments, said in (
                (["client"], "--endpoint"),
                (["server", "--endpoint", "a b"], "--endpoint: must be"),
                (["server", "--endpoint", "192.0.2.1", "--name", "../x"], "--name: must"),
                (["server", "--endpoint", "192.0.2.1", "--inner", "10.1.0.1/24"], "--inner: must"),
                (["server", "--endpoint", "192.0.2.1", "--dns", "resolver"], "/network/dns"),
                (["client", "--server-config", f"{self.here}/none.yaml"], "none.yaml"),
                (["client", "--endpoint", "192.0.2.1", "--default-route"], "--nat-device")):
            if "--server-config" not in arguments:
                arguments += ["--dir", self.here]
            done = self.init(self.server, *arguments, check=False)
            self.assertEqual(done.returncode, 1, arguments)
            self.assertEqual(done.stderr.count("\n"), 1, done.stderr)
            self.assertIn(said, done.stderr)
            self.assertFalse(os.path.exists(self.here))

    def test_on_a_terminal_it_asks(self):
        ours, theirs = pty.openpty()
        self.addCleanup(os.close, ours)
        process = subprocess.Popen(
            self.client.command(natives.braid(), "init", "client", "--dir", self.here),
            stdin=theirs, stdout=theirs, stderr=theirs)
        os.close(theirs)
        os.write(ours, b"vpn.example.net\n")
        self.assertEqual(process.wait(20), 0)
        with open(f"{self.here}/client.yaml", encoding="ascii") as file:
            self.assertIn('"vpn.example.net:7700"', file.read())
