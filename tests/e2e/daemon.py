"""A braid daemon in a namespace: its keys, its configuration, its life."""
import copy
import json
import os
import signal
import socket
import time

import natives
from lab import eventually, run

PORT = 7700
DEVICE = "braid0"


def merged(base, extra):
    """`extra` over `base`, object by object; a None takes the key away."""
    result = copy.deepcopy(base)
    for key, value in (extra or {}).items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, dict) and isinstance(result.get(key), dict):
            result[key] = merged(result[key], value)
        else:
            result[key] = copy.deepcopy(value)
    return result


class Identity:
    """A key pair; the private half is in a file that only root reads."""

    def __init__(self, lab, name):
        self.name = name
        self.private = run(natives.braid(), "keygen").stdout.strip()
        self.public = run(natives.braid(), "pubkey", input=self.private + "\n").stdout.strip()
        self.file = os.path.join(lab.folder, name + ".key")
        write_private(self.file, self.private + "\n")


def write_private(path, text):
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w",
              encoding="ascii") as file:
        file.write(text)


def endpoint(address, port=PORT):
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


class Daemon:
    """`wrap` is a command line that the daemon is run by, such as setpriv; `program` is another
    build's braid."""

    def __init__(self, ns, name, config, wrap=(), guarded=True, program=None):
        self.ns = ns
        self.name = name
        self.wrap = list(wrap)
        self.guarded = guarded
        self.program = program or natives.braid()
        self.process = None
        self._starts = 0
        self._logs = []
        folder = ns.lab.folder
        self.socket_path = os.path.join(folder, name + ".sock")
        self.config_path = os.path.join(folder, name + ".json")
        self.config = merged({
            "network": {"device": DEVICE},
            "security": {"state_dir": os.path.join(folder, name + ".state")},
            "control": {"socket": self.socket_path},
            "log": {"level": "debug"},
        }, config)
        ns.lab.daemons.append(self)

    @property
    def device(self):
        return self.config["network"]["device"]

    def start(self, ready=True):
        with open(self.config_path, "w", encoding="ascii") as file:
            json.dump(self.config, file, indent=1)
        self._starts += 1
        # Ahead of braid only: the programs that wrap it may allocate as they like.
        preload = ["env", "LD_PRELOAD=" + natives.alloc_guard()] if self.guarded else []
        self.process = self.ns.start(f"{self.name}{self._starts}", *self.wrap, *preload,
                                     self.program, "run", "--config", self.config_path)
        if ready:
            self.wait_ready()
        return self

    def wait_ready(self, seconds=5):
        def is_ready():
            code = self.process.poll()
            if code is not None:
                raise AssertionError(f"{self.name} ended with {code} at start:\n{self.log()}")
            return self.try_status() is not None
        eventually(is_ready, seconds, f"{self.name} answers on its control socket")

    def log(self):
        """What it has said since it was last started."""
        return self.process.err() + self.process.out() if self.process else ""

    def all_logs(self):
        return "".join(self._logs) + self.log()

    def call_raw(self, data, seconds=3):
        """Sends bytes to the control socket; returns the lines that come back until it is quiet."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.settimeout(seconds)
            client.connect(self.socket_path)
            client.sendall(data)
            with client.makefile("rb") as answers:
                return answers.readline()

    def try_status(self):
        """The status, or None while nobody answers."""
        try:
            reply = json.loads(self.call_raw(b'{"v":1,"verb":"status"}\n'))
        except (OSError, ValueError):
            return None
        return reply.get("result")

    def status(self):
        done = run(natives.braid(), "status", "--json", "--socket", self.socket_path)
        return json.loads(done.stdout)

    def shown_status(self):
        """As people see it."""
        return run(natives.braid(), "status", "--socket", self.socket_path).stdout

    def peer(self, name=None):
        """A peer's part of the status; the first one's where none is named."""
        peers = self.status()["peers"]
        return next(peer for peer in peers if name is None or peer["name"] == name)

    def path(self, peer=None):
        return self.peer(peer)["paths"][0]

    def drops(self):
        return self.status()["drops"]

    def is_established(self, peer=None):
        status = self.try_status()
        peers = status["peers"] if status else []
        return any(one["established"] for one in peers if peer in (None, one["name"]))

    def wait_established(self, peer=None, seconds=5):
        eventually(lambda: self.is_established(peer), seconds, f"{self.name} is established")

    def stop(self):
        """Stops it in order. Returns what was wrong with its end, or nothing."""
        if self.process is None:
            return []
        wrong = []
        running = self.process.poll() is None
        last = self._summary() if running else ""
        code = self.process.stop(signal.SIGTERM)
        if code != 0:
            how = "when it was stopped" if running else "by itself"
            wrong.append(f"{self.name} ended {how} with {code}")
        if "alloc guard:" in self.log():
            wrong.append(f"{self.name} allocated on the packet path")
        if not self._device_goes():
            wrong.append(f"{self.name} left its device {self.device}")
        if os.path.exists(self.socket_path):
            wrong.append(f"{self.name} left its control socket")
        self._forget()
        self._logs.append(last)
        return wrong

    def _summary(self):
        """What it and the kernel counted, for those who look for a lost packet."""
        status = self.try_status()
        if status is None:
            return ""
        drops = {name: count for name, count in status["drops"].items() if count}
        device = self.ns.ip(f"-s link show dev {self.device}", check=False).stdout
        return f"summary: drops {drops}, peers {json.dumps(status['peers'])}\n{device}"

    def _device_goes(self, seconds=1):
        end = time.monotonic() + seconds
        while self.device in self.ns.devices():
            if time.monotonic() > end:
                return False
            time.sleep(0.01)
        return True

    def kill(self):
        """As a power cut would."""
        self.process.kill()
        self._forget()

    def _forget(self):
        self._logs.append(self.log())
        self.process = None
