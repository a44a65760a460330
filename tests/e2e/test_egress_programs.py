"""Programs that people use, through rules: some of what they reach leaves straight, some through a
SOCKS5 server, and some not at all. Machines as in machines.py.
"""
import hashlib
import json
import os

import socks5
from lab import eventually
from machines import DIRECT, FAR, PORT, Machines, seen_as
from test_egress import ECHO_PORT, FAR_NETWORKS, Echo
from test_reload import reload, write
from test_socks5 import GROUP, PROVIDER, THROUGH

WEB_PORT, WEB_PORT_THROUGH, WEB_PORT_BLOCKED, WEB_PORT_SILENT = range(PORT + 20, PORT + 24)
IPERF_PORT = PORT + 24
CURL_REFUSED, CURL_LATE = 7, 28


def rule(to, port, **more):
    return {"match": {"prefix": FAR_NETWORKS, "port": port}, "to": to, **more}


class EgressPrograms(Machines):
    def start(self, rules):
        self.set_up(client=self.proxy(rules))
        self.socks = socks5.Server(self.provider, 1080)
        echo = Echo(self.far)
        self.addCleanup(echo.close)
        self.tunnel.start()
        eventually(lambda: seen_as(self.client_ns, FAR[4]) is not None, 10, "the far end is reached")

    @staticmethod
    def proxy(rules):
        upstream = {"address": f"{PROVIDER[4]}:1080"}
        return {"proxy": {"rules": rules, "groups": {GROUP: {"upstreams": [upstream]}}}}

    def serve_files(self):
        """A web server for each port, all of the same files."""
        folder = os.path.join(self.lab.folder, "www")
        os.mkdir(folder)
        self.large = os.urandom(1 << 20) * 30
        with open(os.path.join(folder, "large"), "wb") as file:
            file.write(self.large)
        with open(os.path.join(folder, "small"), "wb") as file:
            file.write(b"small\n")
        for port in (WEB_PORT, WEB_PORT_THROUGH, WEB_PORT_BLOCKED, WEB_PORT_SILENT):
            self.far.start(f"web{port}", "/usr/bin/python3", "-m", "http.server", port, "--bind",
                           "::", "--directory", folder)
            socks5.wait_for_listener(self.far, port)

    def curl(self, port, *paths, family=4, check=True):
        """What it has got, one file for each path."""
        host = f"[{FAR[family]}]" if family == 6 else FAR[family]
        targets, files = [], []
        for number, path in enumerate(paths):
            files.append(os.path.join(self.lab.folder, f"got{number}"))
            targets += ["-o", files[-1], f"http://{host}:{port}/{path}"]
        done = self.client_ns.run("curl", "-sS", "--fail", "--max-time", 10 if check else 3,
                                  *targets, check=check)
        return files, done

    def test_curl_and_a_web_server(self):
        self.start([rule("direct", WEB_PORT), rule(GROUP, WEB_PORT_THROUGH),
                    rule("block", WEB_PORT_BLOCKED), rule("block", WEB_PORT_SILENT, silent=True)])
        self.serve_files()
        for family in (4, 6):
            for port in (WEB_PORT, WEB_PORT_THROUGH):
                [large, *smalls], _ = self.curl(port, "large", *["small"] * 20, family=family)
                with open(large, "rb") as file:
                    self.assertEqual(hashlib.sha256(file.read()).digest(),
                                     hashlib.sha256(self.large).digest())
                for small in smalls:
                    with open(small, "rb") as file:
                        self.assertEqual(file.read(), b"small\n")
            self.assertEqual(self.curl(WEB_PORT_BLOCKED, "small", family=family,
                                       check=False)[1].returncode, CURL_REFUSED)
            self.assertEqual(self.curl(WEB_PORT_SILENT, "small", family=family,
                                       check=False)[1].returncode, CURL_LATE)
        log = "".join(process.err() for process in self.lab.processes if "web" in process.name)
        for seen in (DIRECT[4], THROUGH[4], DIRECT[6], THROUGH[6]):
            self.assertIn(f"{seen} - - ", log)

    def test_nc_ends_its_half_and_reads_on(self):
        self.start([rule("direct", ECHO_PORT)])
        for to in ("direct", GROUP):
            write(self.client, self.proxy([rule(to, ECHO_PORT)]))
            reload(self.client)
            done = self.client_ns.run("nc", "-N", "-w", 5, FAR[4], ECHO_PORT, input="question ")
            self.assertEqual(done.stdout, "question bye", to)

    def test_iperf3_up_down_and_both_at_once(self):
        self.start([rule("direct", IPERF_PORT)])
        self.far.start("iperf", "iperf3", "-s", "-p", IPERF_PORT)
        socks5.wait_for_listener(self.far, IPERF_PORT)
        for to in ("direct", GROUP):
            write(self.client, self.proxy([rule(to, IPERF_PORT)]))
            reload(self.client)
            for direction in ((), ("-R",), ("--bidir", "-P", 3)):
                done = self.client_ns.run("iperf3", "-c", FAR[4], "-p", IPERF_PORT, "-t", 1, "-J",
                                          *direction)
                report = json.loads(done.stdout)
                self.assertNotIn("error", report)
                self.assertGreater(report["end"]["sum_received"]["bytes"], 1 << 20, (to, direction))
