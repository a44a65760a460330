"""The lab: network namespaces, the links between them, and the processes in them.

Everything that a lab makes carries the name of this run and goes with the lab: when it is closed,
at exit, on a signal. What a run left behind that was killed outright is swept by the next one.
"""
import atexit
import contextlib
import ctypes
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

_libc = ctypes.CDLL(None, use_errno=True)
_CLONE_NEWNET = 0x40000000
_PR_SET_PDEATHSIG = 1

_STAT_SESSION, _STAT_UTIME, _STAT_STIME, _STAT_RSS = 3, 11, 12, 21  # behind the name

_PREFIX = "bt"  # namespaces are called bt<pid>-<name>
_open_labs = []


class LabError(Exception):
    """What the lab needs did not work; not what is being tested."""


def eventually(condition, seconds=5, what="", interval=0.02):
    """Waits until `condition()` is true and returns what it returned."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds} s: {what or condition.__name__}")
        time.sleep(interval)


def run(*command, check=True, **options):
    """Runs a command to its end; what it wrote is in .stdout and .stderr, as text."""
    options.setdefault("timeout", 60)
    done = subprocess.run([str(part) for part in command], text=True,
                          stdin=None if "input" in options else subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False, **options)
    if check and done.returncode != 0:
        text = " ".join(str(part) for part in command)
        raise LabError(f"{text}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return done


def require_root():
    """Ends the program with a clear line where the tests cannot run."""
    missing = []
    if os.geteuid() != 0:
        missing.append("root")
    if not os.path.exists("/dev/net/tun"):
        missing.append("/dev/net/tun (modprobe tun)")
    for tool in ("ip", "ping", "iperf3", "nft", "ethtool", "setpriv", "conntrack"):
        if shutil.which(tool) is None:
            missing.append(f"the program {tool} (tools/install-deps)")
    if missing:
        sys.exit("the lab needs " + ", ".join(missing))


def _die_with_parent():
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class Process:
    """A program in a namespace, with what it writes kept in two files.

    It leads a session of its own; what it starts is measured with it. With `takes_input` it reads
    what write() is given, else nothing.
    """

    def __init__(self, command, folder, name, environment=None, takes_input=False):
        self.name = name
        self.out_path = os.path.join(folder, name + ".out")
        self.err_path = os.path.join(folder, name + ".err")
        with open(self.out_path, "ab") as out, open(self.err_path, "ab") as err:
            self._popen = subprocess.Popen(
                [str(part) for part in command], stdout=out, stderr=err,
                stdin=subprocess.PIPE if takes_input else subprocess.DEVNULL,
                env={**os.environ, **(environment or {})}, start_new_session=True,
                preexec_fn=_die_with_parent)

    @property
    def pid(self):
        return self._popen.pid

    def poll(self):
        return self._popen.poll()

    def out(self):
        with open(self.out_path, encoding="utf-8", errors="replace") as file:
            return file.read()

    def err(self):
        with open(self.err_path, encoding="utf-8", errors="replace") as file:
            return file.read()

    def write(self, text):
        self._popen.stdin.write(text.encode())
        self._popen.stdin.flush()

    def close_input(self):
        self._popen.stdin.close()

    def wait(self, seconds=30):
        return self._popen.wait(seconds)

    def send_signal(self, number):
        if self.poll() is None:
            self._popen.send_signal(number)

    def stop(self, number=signal.SIGTERM, seconds=10):
        """Ends it and returns its exit code; one that does not obey is killed and returns None."""
        self.send_signal(number)
        try:
            return self.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            return None

    def kill(self):
        self.send_signal(signal.SIGKILL)
        self._popen.wait()

    def resident_bytes(self):
        pages = sum(int(fields[_STAT_RSS]) for fields in self._stats())
        return pages * os.sysconf("SC_PAGESIZE")

    def cpu_seconds(self):
        ticks = sum(int(fields[_STAT_UTIME]) + int(fields[_STAT_STIME])
                    for fields in self._stats())
        return ticks / os.sysconf("SC_CLK_TCK")

    def _stats(self):
        """/proc/PID/stat behind the name, of each process of the session."""
        for pid in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
                    fields = file.read().rpartition(")")[2].split()
                if int(fields[_STAT_SESSION]) == self.pid:
                    yield fields


class Namespace:
    """One machine of the lab."""

    def __init__(self, lab, short):
        self.lab = lab
        self.short = short
        self.name = f"{_PREFIX}{os.getpid()}-{short}"
        run("ip", "netns", "add", self.name)

    def prepare(self):
        # Addresses are usable at once, and nothing is sent that nobody asked for.
        for family in ("all", "default"):
            self.sysctl(f"net.ipv6.conf.{family}.accept_dad", 0)
            self.sysctl(f"net.ipv6.conf.{family}.accept_ra", 0)
            self.sysctl(f"net.ipv6.conf.{family}.router_solicitations", 0)
        # When an address goes, the others of its net stay.
        self.sysctl("net.ipv4.conf.all.promote_secondaries", 1)
        self.ip("link set lo up")

    @contextlib.contextmanager
    def entered(self):
        """This thread is in the namespace; sockets that it opens stay there."""
        with open("/proc/thread-self/ns/net", "rb") as home, \
                open(f"/run/netns/{self.name}", "rb") as there:
            if _libc.setns(there.fileno(), _CLONE_NEWNET) != 0:
                raise LabError(f"setns {self.name}: {os.strerror(ctypes.get_errno())}")
            try:
                yield
            finally:
                _libc.setns(home.fileno(), _CLONE_NEWNET)

    def socket(self, *arguments):
        with self.entered():
            return socket.socket(*arguments)

    def sysctl(self, key, value):
        with self.entered():
            with open("/proc/sys/" + key.replace(".", "/"), "w", encoding="ascii") as file:
                file.write(str(value))

    def ip(self, command, check=True):
        return run("ip", "-n", self.name, *command.split(), check=check)

    def command(self, *command):
        return ["ip", "netns", "exec", self.name, *command]

    def run(self, *command, **options):
        return run(*self.command(*command), **options)

    def start(self, name, *command, environment=None, takes_input=False):
        """A program that goes on; the lab ends it at the latest."""
        process = Process(self.command(*command), self.lab.folder, f"{self.short}-{name}",
                          environment, takes_input)
        self.lab.processes.append(process)
        return process

    def ethtool(self, device, **features):
        """ethtool(device, tso="off", rx_gro_list="on")"""
        settings = []
        for feature, value in features.items():
            settings += [feature.replace("_", "-"), value]
        self.run("ethtool", "-K", device, *settings)

    def nft(self, rules):
        self.run("nft", "-f", "-", input=rules)

    def masquerade(self, match, ports=None):
        """What matches leaves with this machine's address. With `ports` (1000-1999) that is UDP
        only, with one of them for each flow. Said again, new flows get others."""
        rule = f"meta l4proto udp masquerade to :{ports} random" if ports else "masquerade"
        self.nft(f"""
            table ip nat {{}}
            delete table ip nat
            table ip nat {{
                chain out {{
                    type nat hook postrouting priority srcnat;
                    {match} {rule}
                }}
            }}""")

    def forward(self):
        self.sysctl("net.ipv4.ip_forward", 1)
        self.sysctl("net.ipv6.conf.all.forwarding", 1)

    def counter(self, device, name):
        """One of the kernel's, of a device: rx_packets is what a tunnel has written to its own."""
        return int(self.run("cat", f"/sys/class/net/{device}/statistics/{name}").stdout)

    def tcp_ext(self, name):
        """One of the kernel's counters in /proc/net/netstat."""
        names, values = (line.split() for line in
                         self.run("grep", "^TcpExt:", "/proc/net/netstat").stdout.splitlines())
        return int(dict(zip(names, values))[name])

    def devices(self):
        with self.entered():
            return {name for _, name in socket.if_nameindex()}

    def mac(self, device):
        text = self.ip(f"link show {device}").stdout
        return bytes.fromhex(re.search(r"link/ether (\S+)", text)[1].replace(":", ""))


class Lab:
    """Makes namespaces and links, and takes all of it away again."""

    def __init__(self):
        _take_over_signals()
        self.folder = tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-")
        self.namespaces = {}
        self.processes = []
        self.daemons = []  # of daemon.Daemon; they end with their processes
        _open_labs.append(self)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def namespace(self, short):
        ns = Namespace(self, short)
        self.namespaces[short] = ns
        ns.prepare()
        return ns

    def link(self, a, a_addresses, b, b_addresses, mtu=1500, queues=None, name=None):
        """Joins two machines. Each end's device is called as the machine at the other end, or,
        where there are several links, `name`."""
        many = f"numtxqueues {queues} numrxqueues {queues}" if queues else ""
        a_device, b_device = name or b.short, name or a.short
        a.ip(f"link add {a_device} mtu {mtu} {many} type veth "
             f"peer name {b_device} mtu {mtu} {many} netns {b.name}")
        for ns, device, addresses in ((a, a_device, a_addresses), (b, b_device, b_addresses)):
            for address in addresses.split():
                ns.ip(f"addr add {address} dev {device}" + (" nodad" if ":" in address else ""))
            ns.ip(f"link set {device} up")
        # The kernel takes up to a second to notice that a link is up, unless it is asked.
        for ns, device in ((a, a_device), (b, b_device)):
            ns.ip(f"link show dev {device}")

    def switch(self, short, members, mtu=1500):
        """Joins many machines: `members` are pairs of a machine and its addresses."""
        switch = self.namespace(short)
        switch.ip("link add bridge type bridge mcast_snooping 0")
        switch.ip("link set bridge up")
        for ns, addresses in members:
            self.link(switch, "", ns, addresses, mtu)
            switch.ip(f"link set {ns.short} master bridge")
            switch.ip(f"link show dev {ns.short}")
        switch.ip("link show dev bridge")
        return switch

    def close(self):
        """May be called again, also from a signal handler in the middle of itself."""
        for process in reversed(self.processes):
            with contextlib.suppress(Exception):
                process.kill()
        for ns in self.namespaces.values():
            _delete_namespace(ns.name)
        shutil.rmtree(self.folder, ignore_errors=True)
        if self in _open_labs:
            _open_labs.remove(self)


def _delete_namespace(name):
    # A program that has moved itself away from its parent would keep the namespace alive.
    pids = run("ip", "netns", "pids", name, check=False).stdout.split()
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)
    run("ip", "netns", "del", name, check=False)


def close_all():
    for lab in list(_open_labs):
        lab.close()


def sweep():
    """Takes away what runs left behind that are dead by now."""
    for name in os.listdir("/run/netns") if os.path.isdir("/run/netns") else []:
        owner = re.match(rf"{_PREFIX}(\d+)-", name)
        if owner and not os.path.exists(f"/proc/{owner[1]}"):
            _delete_namespace(name)
    for name in os.listdir(tempfile.gettempdir()):
        owner = re.match(rf"{_PREFIX}(\d+)-", name)
        if owner and not os.path.exists(f"/proc/{owner[1]}"):
            shutil.rmtree(os.path.join(tempfile.gettempdir(), name), ignore_errors=True)


def _on_signal(number, _frame):
    # A second signal must not interrupt the tidying up.
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, signal.SIG_IGN)
    close_all()
    sys.stderr.write(f"\nended by {signal.Signals(number).name}; everything is tidied up\n")
    os._exit(128 + number)


_signals_taken = False


def _take_over_signals():
    global _signals_taken
    if _signals_taken:
        return
    _signals_taken = True
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _on_signal)
    atexit.register(close_all)
    sweep()
