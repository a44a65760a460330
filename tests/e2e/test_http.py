"""The HTTP API of a running daemon: each operation of its own document, who may ask for what, and
clients that mean no good.

    client ──veth── server
"""
import json
import resource
import socket
import ssl
import time

import natives
from daemon import Identity
from http_api import Api, PORT, Schemas, make_certificate, make_token
from lab import eventually, run
from lab_test import LabTest
from topology import INNER, OUTER, Tunnel
from traffic import ping

METHODS = ("get", "post", "put", "patch", "delete")
# What is sent to the operations that take something, in the order in which they are called.
WRITES = (
    ("put", "/v1/mode", {"mode": "redundant"}),
    ("post", "/v1/paths", {"name": "spare", "interface": "server", "standby": True}),
    ("patch", "/v1/paths/{name}", {"weight": 2, "rate_mbps": 10}),
    ("delete", "/v1/paths/{name}", None),
    ("patch", "/v1/throttle", {"total": {"rate_mbps": 900}, "peers": {"hub": None}}),
    ("post", "/v1/reload", {"only_show": True}),
    ("post", "/v1/start", None),
    ("post", "/v1/stop", None),
)
NAMES = {"/v1/peers/{name}": "hub", "/v1/paths/{name}": "spare"}
STREAM = "/v1/events"


def filled(path):
    return path.replace("{name}", NAMES.get(path, ""))


class Http(LabTest):
    beside_others = True

    def start_tunnel(self, **options):
        """The client's API listens on its loopback."""
        self.token_file, self.token = make_token(self.lab)
        http = {"address": f"127.0.0.1:{PORT}", "token_file": self.token_file}
        self.tunnel = Tunnel(self.lab, client={"control": {"http": http}}, **options).start()
        self.api = Api(self.tunnel.client_ns)
        return self.tunnel

    def assert_fits(self, value, schema, what):
        self.assertEqual(self.schemas.mistakes(value, schema), [], f"{what}: {value}")

    def call(self, method, path, body):
        """As somebody with the token; what comes must be what the document says."""
        operation = self.document["paths"][path][method]
        what = f"{method} {path}"
        if body is not None:
            schema = operation["requestBody"]["content"]["application/json"]["schema"]
            self.assert_fits(body, schema, what)
        status, result = self.api.ask(method.upper(), filled(path), body, self.token)
        self.assertEqual(status, 200, f"{what}: {result}")
        (kind, content), = operation["responses"]["200"]["content"].items()
        if kind == "application/json":
            self.assert_fits(result, content["schema"], what)
        else:
            self.assertIsInstance(result, str)
        return result

    def assert_refused(self, status, code, method, path, **options):
        got, error = self.api.ask(method.upper(), path, **options)
        self.assertEqual((got, error["code"]), (status, code), f"{method} {path}: {error}")
        responses = self.document["components"]["responses"]
        schema = responses["Error"]["content"]["application/json"]["schema"]
        self.assert_fits(error, schema, f"{method} {path}")

    def test_every_operation_of_the_document_does_what_it_says(self):
        self.start_tunnel()
        self.document = self.api.get("/v1/openapi.json")
        self.schemas = Schemas(self.document)
        operations = {(method, path) for path, item in self.document["paths"].items()
                      for method in item}
        reads = {(method, path) for method, path in operations if method == "get"}
        self.assertEqual(operations - reads, {(method, path) for method, path, _ in WRITES})
        for method, path in sorted(operations):
            for other in set(METHODS) - {known for known, there in operations if there == path}:
                self.assert_refused(405, "method_not_allowed", other, filled(path),
                                    token=self.token)
        for method, path in sorted(reads):
            if path != STREAM:
                self.call(method, path, None)
        for method, path, body in WRITES:
            self.assert_refused(401, "unauthorized", method, filled(path), body=body)
            self.assert_refused(401, "unauthorized", method, filled(path), body=body,
                                token="x" * 64)
        self.assertNotEqual(self.api.get("/v1/mode")["mode"], "redundant")
        self.assert_refused(404, "not_found", "get", "/v1/peers/nobody")
        self.assert_refused(404, "not_found", "get", "/v1/nothing")
        self.assert_refused(400, "bad_params", "put", "/v1/mode", body={"mode": "fast"},
                            token=self.token)
        for method, path, body in WRITES:
            self.call(method, path, body)
            if path.startswith("/v1/paths"):
                self.assertEqual("spare" in self.names_of_paths(), method != "delete")
            if path == "/v1/mode":
                self.assertEqual(self.api.get(path)["mode"], body["mode"])
        # A tunnel that is stopped has a status, too.
        self.assertEqual(self.call("get", "/v1/status", None)["state"], "stopped")

    def names_of_paths(self):
        return [one["name"] for one in self.api.get("/v1/paths")["paths"]]

    def test_it_tells_what_the_control_socket_tells(self):
        tunnel = self.start_tunnel()
        status = self.api.get("/v1/status")
        self.assertEqual(status.keys(), tunnel.client.status().keys())
        self.assertTrue(status["peers"][0]["established"])
        text = self.api.get("/metrics")
        self.assertIn("\n# TYPE braid_", "\n" + text)
        # Times and loads differ from one moment to the next, names do not.
        names = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")}
        again = self.api.get("/v1/metrics")["text"]
        self.assertEqual(names, {line.split()[2] for line in again.splitlines()
                                 if line.startswith("# TYPE")})

    def test_pages_of_others_get_nothing(self):
        self.start_tunnel()
        for fields in ({"Host": "evil.example"}, {"Host": f"evil.example:{PORT}"},
                       {"Origin": "http://evil.example"}, {"Origin": "null"}):
            with self.subTest(fields=fields):
                status, error = self.api.ask("GET", "/v1/status", fields=fields)
                self.assertEqual((status, error["code"]), (403, "forbidden"))
        own = {"Host": f"localhost:{PORT}", "Origin": f"http://localhost:{PORT}"}
        self.assertEqual(self.api.ask("GET", "/v1/status", fields=own)[0], 200)

    def test_secrets_are_never_told(self):
        psk = Identity(self.lab, "psk")
        tunnel = self.start_tunnel(peer_of_both={"preshared_key_file": psk.file})
        told = "".join(json.dumps(self.api.get(path)) for path in
                       ("/v1/config", "/v1/status", "/v1/peers", "/v1/peers/hub", "/v1/paths",
                        "/v1/health", "/metrics"))
        for secret in (tunnel.branch.private, psk.private, self.token):
            self.assertNotIn(secret, told)
            self.assertNotIn(secret, tunnel.client.log())

    def test_events_come_as_they_happen_and_again(self):
        tunnel = self.start_tunnel()
        with self.api.connect(30) as client:
            client.sendall(b"GET /v1/events HTTP/1.1\r\nHost: localhost\r\n"
                           b"Last-Event-ID: 0\r\n\r\n")
            stream = client.makefile(encoding="utf-8")
            self.assertIn(" 200 ", stream.readline())
            self.wait_for(stream, "missed")  # an id of long ago: the whole history comes
            first = self.wait_for(stream, "session_established")
            self.assertEqual(tunnel.server.stop(), [])
            lost = self.wait_for(stream, "session_lost")
            self.assertGreater(int(lost["id"]), int(first["id"]))
            data = json.loads(lost["data"])
            self.assertLess(abs(data["time_ms"] / 1000 - time.time()), 60)
            self.assertIsInstance(data["data"], dict)

    def wait_for(self, stream, kind):
        """The next event of this kind: its fields."""
        fields = {}
        for line in stream:
            name, _, value = line.rstrip("\n").partition(": ")
            if name and value:
                fields[name] = value
            elif fields.get("event") == kind:
                return fields
            else:
                fields = {}
        raise AssertionError(f"the stream ended before an event {kind} came")

    def test_a_thousand_slow_clients_hinder_nobody(self):
        tunnel = self.start_tunnel()
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, limit[1]), limit[1]))
        before = tunnel.client.process.resident_bytes()
        slow = []
        for number in range(1000):
            client = self.api.connect()
            client.sendall(b"GET /v1/status HTTP/1.1\r\nHost: loc")
            slow.append(client)
            if number % 100 == 0:
                self.api.get("/v1/status")
        for client in slow[::2]:
            try:
                client.sendall(b"a")
            except OSError:
                pass  # it had to make room
        done = ping(tunnel.client_ns, INNER[4][1], count=20, interval=0.05)
        self.assertEqual(done.received, 20)
        self.api.get("/v1/status")
        self.assertEqual(tunnel.client.status()["state"], "running")
        self.assertLess(tunnel.client.process.resident_bytes() - before, 8 << 20)
        for client in slow:
            client.close()
        cpu = tunnel.client.process.cpu_seconds()
        time.sleep(1)
        self.assertLess(tunnel.client.process.cpu_seconds() - cpu, 0.5)

    def test_monstrous_bodies_are_refused_in_little_memory(self):
        tunnel = self.start_tunnel()
        head = (f"PUT /v1/mode HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {self.token}"
                "\r\nContent-Type: application/json\r\n")
        chunk = b"10000\r\n" + b"[" * 65536 + b"\r\n"
        cases = (
            (f"{head}Content-Length: {1 << 30}\r\n\r\n", b"[" * 65536, 413),
            (f"{head}Transfer-Encoding: chunked\r\n\r\n", chunk, 413),
            (f"{head}Content-Length: 100000\r\n\r\n", b"[" * 50000, 413),
            (f"{head}Content-Length: 65536\r\n\r\n", b"[" * 65536, 400),
            (head + "X: ", b"x" * 65536, 431),
        )
        self.refuse(cases[3])
        before = tunnel.client.process.resident_bytes()
        for case in cases:
            self.refuse(case)
        self.assertLess(tunnel.client.process.resident_bytes() - before, 1 << 20)
        self.assertEqual(self.api.get("/v1/status")["state"], "running")

    def refuse(self, case):
        head, piece, status = case
        with self.subTest(head=head[-40:]), self.api.connect() as client:
            client.sendall(head.encode())
            try:
                for _ in range((1 << 30) // len(piece)):
                    client.sendall(piece)
            except OSError:
                pass  # it was cut off, and has been told why
            self.assertEqual(client.recv(12), f"HTTP/1.1 {status}".encode())

    def test_off_the_loopback_tls_and_token_are_needed(self):
        token_file, token = make_token(self.lab)
        certificate, key = make_certificate(self.lab, OUTER[4][1])
        http = {"address": f"0.0.0.0:{PORT}", "token_file": token_file,
                "tls": {"certificate_file": certificate, "key_file": key}}
        tunnel = Tunnel(self.lab, server={"control": {"http": http}})
        tunnel.server.start()
        api = Api(tunnel.client_ns, OUTER[4][1], authority=certificate)
        self.assertEqual(api.ask("GET", "/v1/status")[0], 401)
        self.assertEqual(api.ask("GET", "/v1/status", token=token)[1]["mode"], "server")
        plain = Api(tunnel.client_ns, OUTER[4][1])
        with plain.connect() as client:
            client.sendall(b"GET /v1/status HTTP/1.1\r\nHost: 10.20.1.2\r\n\r\n")
            self.assertNotIn(b"HTTP", client.recv(100))
        # A new certificate is taken while the daemon runs.
        make_certificate(self.lab, OUTER[4][1])
        renewed = Api(tunnel.client_ns, OUTER[4][1], token, certificate)

        def is_renewed():
            try:
                return renewed.get("/v1/status")
            except ssl.SSLError:
                return None
        eventually(is_renewed, 5, "the new certificate is shown")

    def test_it_may_listen_inside_its_own_tunnel(self):
        token_file, token = make_token(self.lab)
        certificate, key = make_certificate(self.lab, INNER[4][0])
        tunnel = Tunnel(self.lab, client={"control": {"http": {
            "address": f"{INNER[4][0]}:{PORT}", "token_file": token_file,
            "tls": {"certificate_file": certificate, "key_file": key}}}}).start()
        self.assertIn("does not have yet", tunnel.client.log())
        api = Api(tunnel.server_ns, INNER[4][0], token, certificate)
        self.assertEqual(api.get("/v1/status")["mode"], "client")

    def test_a_port_that_is_taken_is_told(self):
        self.token_file, _ = make_token(self.lab)
        tunnel = Tunnel(self.lab, client={"control": {"http": {
            "address": f"127.0.0.1:{PORT}", "token_file": self.token_file}}})
        with tunnel.client_ns.socket(socket.AF_INET, socket.SOCK_STREAM) as other:
            other.bind(("127.0.0.1", PORT))
            other.listen()
            tunnel.client.start(ready=False)
            self.assertNotEqual(tunnel.client.process.wait(10), 0)
            self.assertIn(f"127.0.0.1:{PORT}", tunnel.client.log())
        tunnel.client.kill()

    def test_check_looks_into_the_files(self):
        token_file, _ = make_token(self.lab)
        certificate, _ = make_certificate(self.lab, "127.0.0.1")
        _, other_key = make_certificate(self.lab, "127.0.0.1", "other")
        short_file, _ = make_token(self.lab, "short.token")
        with open(short_file, "w", encoding="ascii") as file:
            file.write("short\n")
        good = {"address": "192.0.2.1:7780", "token_file": token_file,
                "tls": {"certificate_file": certificate,
                        "key_file": certificate.replace(".crt", ".key")}}
        cases = (
            (good, ""),
            ({**good, "token_file": short_file}, "/control/http/token_file: "),
            ({**good, "tls": {**good["tls"], "key_file": other_key}},
             "/control/http/tls/key_file: "),
            ({"address": good["address"]}, "/control/http/tls: "),
        )
        tunnel = Tunnel(self.lab)
        for http, mistake in cases:
            config = {**tunnel.client.config, "control": {"http": http}}
            path = self.lab.folder + "/checked.json"
            with open(path, "w", encoding="ascii") as file:
                json.dump(config, file)
            done = run(natives.braid(), "check", "--config", path, check=False)
            self.assertEqual(done.returncode, 1 if mistake else 0, done.stderr)
            self.assertIn(mistake, done.stderr)
