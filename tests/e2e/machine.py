"""A machine that systemd runs: this one's file system with changes that are thrown away, in one of
the lab's namespaces.
"""
import contextlib
import fcntl
import os
import re
import shutil

import natives
from lab import eventually, LabError, Process, run

# Of what this machine would start itself nothing is, so that a boot is short, and each the same.
# systemd-nspawn ends with 133 when the machine is to boot again.
_RUN = """
set -e
mkdir -p /run/systemd
mount -t tmpfs machine /run/systemd
mount -t tmpfs -o mode=755 machine "$1"
mkdir "$1/changes" "$1/work" "$1/root"
mount -t overlay -o lowerdir=/,upperdir="$1/changes",workdir="$1/work" machine "$1/root"
cd "$1/root"
: > etc/machine-id
rm -rf etc/systemd/system/*.wants etc/rc?.d/S*
rm -f usr/sbin/policy-rc.d  # of container images: forbids packages to start anything
rm -f etc/resolv.conf
echo 'nameserver 10.20.1.254' > etc/resolv.conf
# What a rule of udev's does on machines that have it.
mknod -m 666 tun c 10 200
export SYSTEMD_NSPAWN_API_VFS_WRITABLE=network
again=133
while [ $again = 133 ]; do
  again=0
  setpriv --pdeathsig KILL systemd-nspawn --quiet --register=no --keep-unit --machine="$2" \
    --directory="$1/root" --network-namespace-path="/run/netns/$2" \
    --bind="$1/root/tun:/dev/net/tun" --capability=CAP_NET_ADMIN,CAP_NET_RAW,CAP_BPF \
    --system-call-filter='bpf @aio' --resolv-conf=off --timezone=off --link-journal=no \
    --console=pipe --boot || again=$?
done
exit $again
"""


class Machine:
    def __init__(self, ns):
        self.ns = ns
        root = os.path.join(ns.lab.folder, ns.short + ".machine")
        os.mkdir(root)
        # Not within the namespace: "ip netns exec" hides the control groups.
        self.process = Process(["unshare", "--mount", "sh", "-c", _RUN, "-", root, ns.name],
                               ns.lab.folder, f"{ns.short}-machine")
        ns.lab.processes.append(self.process)
        self._boots = set()
        self._wait_booted()

    def _wait_booted(self, seconds=60):
        self._leader = eventually(self._first_process, seconds, "the first process is there", 0.1)
        self._boots.add(self._leader)
        eventually(lambda: self.run("systemctl", "is-system-running", check=False).stdout.strip()
                   in ("running", "degraded"), seconds, "the machine has booted", 0.2)

    def _first_process(self):
        if self.process.poll() is not None:
            raise LabError(f"the machine does not boot: {self.process.err()}")
        for nspawn in _children(self.process.pid):
            for pid in _children(nspawn):
                with contextlib.suppress(FileNotFoundError):
                    is_systemd = os.readlink(f"/proc/{pid}/exe").endswith("/systemd")
                    if is_systemd and pid not in self._boots:
                        return pid
        return None

    def reboot(self, meanwhile):
        """`meanwhile()` is called when nothing runs."""
        before = self._leader
        self.run("systemctl", "reboot", check=False)
        eventually(lambda: not os.path.exists(f"/proc/{before}"), 60, "the machine is down")
        meanwhile()
        self._wait_booted()

    def run(self, *command, **options):
        return run("nsenter", "--target", self._leader, "--all", "--wd=/", "--", *command,
                   **options)

    def uncover_kernel_settings(self):
        """/proc/sys is one writable mount then, as on machines that are no containers. What is
        not below net/ belongs to the real one."""
        self.run("umount", "--lazy", "/proc/sys")

    def write(self, path, text, mode=0o644, owner="root:root"):
        self.run("install", "-D", "-m", f"{mode:o}", "/dev/stdin", path, input=text)
        self.run("chown", owner, path)

    def read(self, path):
        return self.run("cat", path).stdout

    def journal(self, unit):
        return self.run("journalctl", "--no-pager", "--output=cat", "--unit", unit).stdout

    def property(self, unit, name):
        return self.run("systemctl", "show", "--value", "--property", name, unit).stdout.strip()

    def install(self, package_path):
        shutil.copy(package_path, f"/proc/{self._leader}/root/root")
        return self.run("dpkg", "--install", "/root/" + os.path.basename(package_path), timeout=120)


def _children(pid):
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
            return [int(child) for child in file.read().split()]
    return []


def package():
    """The Debian package of this tree; built when there is none, or what it is made of is newer."""
    folder = os.path.join(natives.ROOT, "build-package-unoptimized")
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "lock"), "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # tests run beside each other
        found = [os.path.join(folder, name) for name in os.listdir(folder)
                 if re.fullmatch(r"braid_[^_]+_[^_]+\.deb", name)]
        if len(found) == 1 and not _newer_than(found[0]):
            return found[0]
        for old in found:
            os.remove(old)
        return run(os.path.join(natives.ROOT, "tools/package"), "--unoptimized",
                   timeout=3600).stdout.strip()


def _newer_than(path):
    sources = [os.path.join(natives.ROOT, name) for name in (
        "src", "linkem", "etc", "debian", "tools", "meson.build", "meson_options.txt")]
    return run("find", *sources, "-newer", path, "-print", "-quit").stdout != ""


def repacked(package_path, folder, version):
    """The same package under another version."""
    contents = os.path.join(folder, "repacked")
    run("dpkg-deb", "--raw-extract", package_path, contents)
    control = os.path.join(contents, "DEBIAN/control")
    with open(control, encoding="utf-8") as file:
        text = re.sub(r"(?m)^Version: .*", f"Version: {version}", file.read())
    with open(control, "w", encoding="utf-8") as file:
        file.write(text)
    target = os.path.join(folder, f"braid_{version}.deb")
    run("dpkg-deb", "-Znone", "--build", contents, target)
    return target
