"""SOCKS5 servers that tests run: their own, which may misbehave, and others."""
import itertools
import json
import os
import signal

import natives
from lab import eventually

USER, PASSWORD = "somebody", "a secret of theirs"


class Server:
    """The tests' own; options as it documents them."""

    _numbers = itertools.count()  # each has files of its own

    def __init__(self, ns, port=1080, *options):
        self.ns, self.port = ns, port
        self.process = ns.start(f"socks5-{next(self._numbers)}", natives.path("socks5_server"),
                                "--port", port, *options)
        eventually(lambda: "listening" in self.process.err(), 5, "the SOCKS5 server listens")

    def counts(self):
        """What it has counted so far."""
        before = len(self.process.out().splitlines())
        self.process.send_signal(signal.SIGUSR1)
        eventually(lambda: len(self.process.out().splitlines()) > before, 5, "it has counted")
        return json.loads(self.process.out().splitlines()[-1])

    def kill(self):
        self.process.kill()


def microsocks(ns, port=1080, address="0.0.0.0", login=None):
    options = ("-u", login[0], "-P", login[1]) if login else ()
    process = ns.start(f"microsocks{port}", "microsocks", "-i", address, "-p", port, *options)
    wait_for_listener(ns, port)
    return process


def dante(lab, ns, internal, external, port=1080):
    """`internal` and `external` are its addresses, towards its clients and the world."""
    path = os.path.join(lab.folder, f"danted{port}.conf")
    outward = "\n".join(f"external: {address}" for address in external)
    with open(path, "w", encoding="ascii") as file:
        file.write(f"""logoutput: stderr
internal: {internal} port = {port}
{outward}
external.rotation: route
clientmethod: none
socksmethod: none
user.privileged: root
user.unprivileged: root
client pass {{ from: 0/0 to: 0/0 }}
socks pass {{ from: 0/0 to: 0/0 }}
""")
    process = ns.start(f"danted{port}", "danted", "-f", path, "-p",
                       os.path.join(lab.folder, f"danted{port}.pid"))
    wait_for_listener(ns, port)
    return process


def wait_for_listener(ns, port):
    eventually(lambda: f":{port} " in ns.run("ss", "-Hltn").stdout, 10, f"port {port} is open")
