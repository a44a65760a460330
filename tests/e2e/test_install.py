"""The package on a machine that systemd runs: what it brings, what its units may do and do, and what
is left when it goes.

    host 10.50.1.2 ── client ── provider ── server
         (the LAN)       └─────── braid0 ──────┘
                              provider ── far 10.40.1.2, fd40::2, sees who comes

The client, or the server, is a machine of its own (machine.py): what systemd enforces is enforced.
"""
import json
import os
import re
import time

import machine
import natives
from daemon import merged
from lab import eventually, run
from lab_test import LabTest
from machine import Machine
from machines import FAR, Machines, seen_as, SERVER

UNIT = "braid@office"
# Of <linux/capability.h>.
CAP_NET_ADMIN, CAP_BPF = 12, 39
EVERYTHING_OF_A_CLIENT = {"network": {
    "kill_switch": True,
    "dns": {"servers": ["10.77.0.1"]},
    "nat": [{"source": "10.50.1.0/24", "out": "braid0"}]}}


class Installed(Machines):
    def set_up_machine(self, client=None, of="client"):
        self.set_up(client=client)
        self.daemon, self.key = {"client": (self.client, self.tunnel.branch),
                                 "server": (self.server, self.tunnel.hub)}[of]
        self.machine = Machine(self.daemon.ns)
        self.machine.install(machine.package())
        self.before = self.state(self.daemon.ns)

    def configure(self, name="office", extra=None):
        """As whoever runs the machine would: by root, with a key that only root may read."""
        config = merged(merged(self.daemon.config, {
            "security": {"state_dir": None, "private_key_file": name + ".key"}, "control": None}),
            extra)
        self.machine.write(f"/etc/braid/{name}.json", json.dumps(config))
        self.machine.write(f"/etc/braid/{name}.key", self.key.private + "\n", 0o600)

    def start(self, unit=UNIT):
        done = self.machine.run("systemctl", "start", unit, check=False)
        self.assertEqual(done.returncode, 0, done.stderr + self.machine.journal(unit))

    def state(self, ns):
        state = super().state(ns)
        if ns is self.machine.ns:
            state["the machine's resolv.conf"] = self.machine.read("/etc/resolv.conf")
        return state

    def status(self, *options):
        return json.loads(self.machine.run("braid", "status", "--json", *options).stdout)

    def eventually_through_the_tunnel(self):
        for family in (4, 6):
            self.eventually_seen_as(self.client_ns, FAR[family], SERVER[family])

    def main_process(self, unit=UNIT):
        """Its /proc/PID/status, line by line."""
        pid = self.machine.property(unit, "MainPID")
        lines = self.machine.read(f"/proc/{pid}/status").splitlines()
        return dict(line.split(":\t", 1) for line in lines if ":\t" in line)

    def mounts(self, unit=UNIT):
        """What it sees of the file system, "ro" or "rw" by mount point."""
        pid = self.machine.property(unit, "MainPID")
        lines = self.machine.read(f"/proc/{pid}/mountinfo").splitlines()
        return {line.split()[4]: line.split()[5].split(",")[0] for line in lines}


class Units(Installed):
    def test_all_that_a_client_does_with_the_rights_of_the_unit(self):
        self.set_up_machine(EVERYTHING_OF_A_CLIENT)
        self.machine.uncover_kernel_settings()
        self.configure()
        self.server.start()
        self.start()
        self.eventually_through_the_tunnel()
        self.eventually_seen_as(self.host, FAR[4], SERVER[4])
        self.assertIn("nameserver 10.77.0.1\n", self.machine.read("/etc/resolv.conf"))

        process = self.main_process()
        uid = self.machine.run("id", "-u", "braid").stdout.strip()
        self.assertEqual(process["Uid"].split(), [uid] * 4)
        granted = 1 << CAP_NET_ADMIN | 1 << CAP_BPF
        for name in ("CapEff", "CapPrm", "CapBnd", "CapAmb"):
            self.assertEqual(int(process[name], 16), granted, name)
        self.assertEqual((process["NoNewPrivs"], process["Seccomp"]), ("1", "2"))
        mounts = self.mounts()
        for path, wanted in (("/", "ro"), ("/etc", "rw"), ("/etc/braid", "ro"),
                             ("/proc/sys", "ro"), ("/proc/sys/net", "rw"),
                             ("/var/lib/braid", "rw")):
            self.assertEqual(mounts[path], wanted, path)

        status = self.status()
        self.assertEqual(status["warnings"], [])
        self.assertEqual((status["io"], status["offloads"]["steering"]),
                         (self.server.status()["io"], "bpf" if os.cpu_count() > 1 else "ring"))

        self.machine.run("systemctl", "stop", UNIT)
        self.assertEqual(self.machine.property(UNIT, "Result"), "success")
        self.assertIn("on: nothing leaves beside braid0",
                      self.machine.run("braid", "kill-switch", "status").stdout)
        self.machine.run("braid", "cleanup", "--all")
        self.assert_as_before(self.before, self.client_ns)

    def test_all_that_a_server_does_with_the_rights_of_the_unit(self):
        self.set_up_machine(of="server")
        self.machine.uncover_kernel_settings()
        self.configure()
        self.start()
        self.client.start()
        self.eventually_through_the_tunnel()
        status = self.status()
        self.assertEqual(status["warnings"], [])
        self.assertEqual((status["io"], status["offloads"]["steering"]),
                         (self.client.status()["io"], "bpf" if os.cpu_count() > 1 else "ring"))
        self.machine.run("systemctl", "stop", UNIT)
        self.assert_as_before(self.before, self.server_ns)

    def test_a_crash_is_cleaned_up_after_and_another_start_follows(self):
        self.set_up_machine({"network": {"dns": {"servers": ["10.77.0.1"]}}})
        self.configure()
        self.server.start()
        self.start()
        self.eventually_through_the_tunnel()
        first = self.machine.property(UNIT, "MainPID")
        self.machine.run("systemctl", "kill", "--kill-who=main", "--signal=KILL", UNIT)
        eventually(lambda: self.machine.property(UNIT, "MainPID") not in ("0", first) and
                   self.machine.property(UNIT, "ActiveState") == "active", 30, "it runs again", 0.2)
        self.assertRegex(self.machine.journal(UNIT), "taken back: .*resolv.conf")
        self.eventually_through_the_tunnel()
        self.machine.run("systemctl", "stop", UNIT)
        self.assert_as_before(self.before, self.client_ns)

    def test_reload_asks_the_running_daemon(self):
        self.set_up_machine()
        self.configure()
        self.server.start()
        self.start()
        self.eventually_through_the_tunnel()
        first = self.machine.property(UNIT, "MainPID")
        self.configure(extra={"throttle": {"total": {"rate_mbps": 50}}})
        self.machine.run("systemctl", "reload", UNIT)
        eventually(lambda: (self.status()["throttle"]["send"] or {}).get("rate_mbps") == 50, 10,
                   "the limit is there")
        self.machine.write("/etc/braid/office.json", "{")
        self.machine.run("systemctl", "reload", UNIT)
        eventually(lambda: re.search("SIGHUP changed nothing: .*/etc/braid/office.json:",
                                     self.machine.journal(UNIT)), 10, "the mistake is told")
        self.assertEqual((self.machine.property(UNIT, "ActiveState"),
                          self.machine.property(UNIT, "MainPID")), ("active", first))
        self.eventually_through_the_tunnel()

    def test_the_watchdog_is_fed_while_all_is_well_and_not_when_it_hangs(self):
        self.set_up_machine()
        self.configure()
        self.machine.write(f"/etc/systemd/system/{UNIT}.service.d/test.conf",
                           "[Service]\nWatchdogSec=2\n")
        self.machine.run("systemctl", "daemon-reload")
        self.server.start()
        self.start()
        self.eventually_through_the_tunnel()
        first = self.machine.property(UNIT, "MainPID")
        time.sleep(6)
        self.assertEqual(self.machine.property(UNIT, "NRestarts"), "0")
        self.machine.run("kill", "-STOP", first)
        eventually(lambda: self.machine.property(UNIT, "NRestarts") == "1" and
                   self.machine.property(UNIT, "ActiveState") == "active", 60, "it runs again", 0.2)
        self.assertIn("Watchdog timeout", self.machine.journal(UNIT))
        self.eventually_through_the_tunnel()

    def test_a_resolv_conf_that_a_dhcp_client_replaces_is_written_again(self):
        self.set_up_machine({"network": {"dns": {"servers": ["10.77.0.1"]}}})
        self.configure()
        self.server.start()
        self.start()
        self.eventually_through_the_tunnel()
        self.machine.write("/etc/resolv.conf.new", "nameserver 10.20.1.253\n")
        self.machine.run("mv", "/etc/resolv.conf.new", "/etc/resolv.conf")
        eventually(lambda: "nameserver 10.77.0.1\n" in self.machine.read("/etc/resolv.conf"), 20,
                   "it is braid's again", 0.1)
        self.machine.run("systemctl", "stop", UNIT)
        self.assertEqual(self.machine.read("/etc/resolv.conf"), "nameserver 10.20.1.253\n")
        self.assertEqual(self.machine.property("braid-resolv-conf.path", "Result"), "success")

    def test_without_the_right_to_load_programs_workers_hand_packets_over(self):
        """Both capabilities are needed for what they are said to be."""
        self.set_up_machine()
        self.configure(extra={"performance": {"workers": 2}})
        self.server.start()

        def allow(capabilities):
            self.machine.write(f"/etc/systemd/system/{UNIT}.service.d/test.conf", "[Service]\n" +
                               "".join(f"{name}=\n{name}={capabilities}\n" for name in
                                       ("CapabilityBoundingSet", "AmbientCapabilities")))
            self.machine.run("systemctl", "daemon-reload")
        allow("CAP_NET_ADMIN")
        self.start()
        self.assertEqual(self.status()["offloads"]["steering"], "ring")
        self.machine.run("systemctl", "stop", UNIT)
        allow("CAP_BPF")
        done = self.machine.run("systemctl", "start", UNIT, check=False)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("CAP_NET_ADMIN", self.machine.journal(UNIT))

    def test_the_kill_switch_holds_from_boot_on(self):
        self.set_up_machine({"network": {"kill_switch": True}})
        self.configure()
        self.server.start()
        self.start()
        self.eventually_through_the_tunnel()
        self.machine.run("systemctl", "enable", "nftables")
        # A restart of a machine takes all tables with it; here the network outlives the machine.
        self.machine.reboot(lambda: self.client_ns.run("nft", "flush", "ruleset"))
        self.assertEqual(self.machine.property(UNIT, "ActiveState"), "inactive")
        unit = "braid-kill-switch"
        self.assertEqual(self.machine.property(unit, "ActiveState"), "active")
        self.assertIn("network-pre.target", self.machine.property(unit, "Before").split())
        for family in (4, 6):
            self.assertIsNone(seen_as(self.client_ns, FAR[family], 1))
        # The distribution's own rules are loaded anew by a flush of all.
        for verb in ("reload", "restart"):
            self.machine.run("systemctl", verb, "nftables")
            eventually(lambda: self.machine.run("braid", "kill-switch", "status",
                                                check=False).returncode == 0, 10,
                       f"the kill switch is back after a {verb}", 0.1)
        self.start()
        self.eventually_through_the_tunnel()

    def leave_resolv_conf(self):
        """The tunnel's, and its journal from another boot: as after a loss of power."""
        journal = "/var/lib/braid/bring-up-braid0.json"
        self.start()
        eventually(lambda: "nameserver 10.77.0.1\n" in self.machine.read("/etc/resolv.conf"), 10,
                   "it is braid's")
        left = json.loads(self.machine.read(journal))
        ours = self.machine.read("/etc/resolv.conf")
        self.machine.run("systemctl", "stop", UNIT)
        left["boot"] = "00000000-0000-0000-0000-000000000000"
        self.machine.write(journal, json.dumps(left), 0o600, "braid:braid")
        # In place, so that its access list stays.
        self.machine.run("sh", "-c", "cat > /etc/resolv.conf", input=ours)

    def test_what_a_loss_of_power_leaves_goes_at_the_next_boot(self):
        self.set_up_machine({"network": {"dns": {"servers": ["10.77.0.1"]}}})
        self.configure()
        self.server.start()
        before = self.machine.read("/etc/resolv.conf")
        self.leave_resolv_conf()
        self.machine.reboot(lambda: None)
        unit = "braid-leftovers"
        self.assertEqual(self.machine.property(unit, "Result"), "success")
        self.assertIn("network-pre.target", self.machine.property(unit, "Before").split())
        self.assertEqual(self.machine.read("/etc/resolv.conf"), before)
        self.machine.run("test", "!", "-e", "/var/lib/braid/bring-up-braid0.json")
        self.assertEqual(self.machine.property(UNIT, "ActiveState"), "inactive")

    def test_roots_cleanup_does_no_more_for_the_daemon_than_the_daemon_may(self):
        """Whoever has taken the daemon over can write its journal."""
        self.set_up_machine({"network": {"dns": {"servers": ["10.77.0.1"]}}})
        self.configure()
        self.server.start()
        self.leave_resolv_conf()
        journal = "/var/lib/braid/bring-up-braid0.json"
        left = json.loads(self.machine.read(journal))
        file = next(one["file"] for one in left["changes"] if "file" in one)
        stat = ("stat", "-c", "%a %U %i", "/etc/resolv.conf")
        before = self.machine.run(*stat).stdout
        forged = dict(file, mode=0o4755)
        self.machine.write(journal, json.dumps(dict(left, changes=[{"file": forged}])), 0o600,
                           "braid:braid")
        done = self.machine.run("braid", "cleanup", check=False)
        self.assertEqual(done.returncode, 1)
        self.assertIn("is damaged", done.stderr)
        link = {"path": file["path"], "ours": file["ours"], "link_target": "/etc/shadow",
                "owner": 0, "group": 0}
        self.machine.write(journal, json.dumps(dict(left, changes=[{"file": link}])), 0o600,
                           "braid:braid")
        done = self.machine.run("braid", "cleanup", check=False)
        self.assertEqual(done.returncode, 1)
        self.assertIn("Permission denied", done.stderr)
        self.assertEqual(self.machine.run(*stat).stdout, before)
        # What the daemon itself may do goes.
        self.machine.write(journal, json.dumps(dict(left, changes=[{"file": file}])), 0o600,
                           "braid:braid")
        self.assertIn("taken back: /etc/resolv.conf", self.machine.run("braid", "cleanup").stdout)
        self.assertEqual(self.machine.run(*stat).stdout, before, "the very same file")
        self.assertNotIn("10.77.0.1", self.machine.read("/etc/resolv.conf"))

    def test_what_root_keeps_for_the_daemon_the_daemon_can_read(self):
        self.set_up_machine({"network": {"kill_switch": True}})
        self.configure()
        self.server.start()
        self.start()
        self.machine.run("systemctl", "stop", UNIT)
        self.machine.run("sh", "-c", "rm -f /var/lib/braid/kill-switch.json.lock")
        self.machine.run("braid", "kill-switch", "release", "braid0", check=False)
        self.machine.run("braid", "cleanup")
        owners = self.machine.run("sh", "-c", "stat -c %U:%G /var/lib/braid/*").stdout.split()
        self.assertEqual(set(owners), {"braid:braid"})

    def test_a_broken_configuration_is_not_tried_for_ever(self):
        self.set_up_machine()
        self.configure()
        limit = self.machine.property(UNIT, "StartLimitBurst")
        self.assertEqual(limit, "30")
        self.machine.write(f"/etc/systemd/system/{UNIT}.service.d/test.conf",
                           "[Unit]\nStartLimitBurst=3\n[Service]\nRestartSec=100ms\n")
        self.machine.run("systemctl", "daemon-reload")
        self.machine.write("/etc/braid/office.json", "{")
        self.machine.run("systemctl", "start", UNIT, check=False)
        eventually(lambda: self.machine.property(UNIT, "ActiveState") == "failed" and
                   self.machine.property(UNIT, "NRestarts") in ("2", "3"), 20, "it has stopped")

    def test_two_instances_beside_each_other(self):
        self.set_up_machine({"network": {"kill_switch": True}})
        self.configure()
        self.machine.write("/etc/braid/second.yaml", f"""
mode: server
network: {{device: braid1, addresses: [10.78.0.1/24]}}
security: {{private_key_file: second.key}}
tunnel: {{listen: [{{address: 0.0.0.0, port: 7701}}], peers: []}}
control: {{socket: /run/braid/second.sock}}
""")
        self.machine.write("/etc/braid/second.key", self.tunnel.hub.private + "\n", 0o600)
        self.server.start()
        self.start()
        self.start("braid@second")
        self.assertEqual(self.status("--socket", "/run/braid/second.sock")["device"], "braid1")
        self.machine.run("systemctl", "stop", "braid@second")
        self.assertEqual(self.status()["device"], "braid0")
        self.eventually_through_the_tunnel()

    def test_a_name_with_two_configurations_is_refused(self):
        self.set_up_machine()
        self.configure()
        self.machine.write("/etc/braid/office.yaml", "mode: client\n")
        self.assertNotEqual(self.machine.run("systemctl", "start", UNIT, check=False).returncode, 0)
        self.assertIn("/etc/braid/office: could be /etc/braid/office.yaml as well as "
                      "/etc/braid/office.json", self.machine.journal(UNIT))

    def test_units_are_sound_and_not_exposed(self):
        self.set_up_machine()
        paths = {unit: self.machine.property(unit.replace("@", UNIT[5:]), "FragmentPath")
                 for unit in ("braid@.service", "braid-kill-switch.service",
                              "braid-leftovers.service", "braid-resolv-conf.path",
                              "braid-resolv-conf.service")}
        done = self.machine.run("systemd-analyze", "verify", *paths.values(), check=False)
        self.assertEqual((done.returncode, done.stdout + done.stderr), (0, ""))
        for unit in ("braid@.service", "braid-kill-switch.service", "braid-leftovers.service"):
            path = paths[unit]
            told = self.machine.run("systemd-analyze", "security", "--offline=true", "--no-pager",
                                    path).stdout
            exposure = float(re.search(r"exposure level for \S+: ([\d.]+)", told)[1])
            self.assertLessEqual(exposure, 3.0, told)

    def test_the_daemon_may_give_its_name_servers_to_the_resolver(self):
        """To systemd-resolved, which asks polkit; its actions are declared here in its place."""
        self.set_up_machine()
        actions = "".join(f"""<action id="org.freedesktop.resolve1.{name}">
            <defaults><allow_any>auth_admin</allow_any></defaults></action>""" for name in (
                "set-dns-servers", "set-domains", "set-default-route", "revert", "set-dnssec"))
        self.machine.write("/usr/share/polkit-1/actions/org.freedesktop.resolve1.policy",
                           f"<policyconfig>{actions}</policyconfig>")
        self.machine.run("systemctl", "start", "dbus")

        def may(user, action):
            return self.machine.run(
                "setpriv", f"--reuid={user}", "--clear-groups", "sh", "-c",
                'pkcheck --process $$ --action-id "$1"', "-", "org.freedesktop.resolve1." + action,
                check=False).returncode == 0
        for action in ("set-dns-servers", "set-domains", "set-default-route", "revert"):
            self.assertTrue(may("braid", action), action)
            self.assertFalse(may("nobody", action), action)
        self.assertFalse(may("braid", "set-dnssec"))

    def test_the_drop_in_for_tuning(self):
        self.set_up_machine()
        self.configure()
        drop_in = self.machine.read("/usr/share/doc/braid/examples/systemd/tuning.conf")
        self.machine.write(f"/etc/systemd/system/{UNIT}.service.d/tuning.conf",
                           re.sub(r"(?m)^CPUAffinity=.*", "CPUAffinity=0", drop_in))
        self.machine.run("systemctl", "daemon-reload")

        def offload():
            text = self.client_ns.run("ethtool", "-k", "provider").stdout
            return re.search(r"tx-udp-segmentation: (\w+)", text)[1]
        self.client_ns.ethtool("provider", tx_udp_segmentation="off")
        self.server.start()
        self.start()
        self.assertEqual(offload(), "on")
        self.assertEqual(self.main_process()["Cpus_allowed_list"], "0")
        self.machine.run("systemctl", "stop", UNIT)
        self.assertEqual(offload(), "off")


class Files(LabTest):
    beside_others = True

    def test_meson_installs_what_the_package_does(self):
        packaged = run("dpkg-deb", "--contents", machine.package()).stdout
        options = json.loads(run("meson", "introspect", "--buildoptions", natives.BUILD).stdout)
        prefix = next(one["value"] for one in options if one["name"] == "prefix")
        folder = os.path.join(self.lab.folder, "installed")
        run("meson", "install", "-C", natives.BUILD, "--no-rebuild", "--destdir", folder)
        installed = {re.sub(r"\.gz$", "", os.path.join(path, name)).removeprefix(folder)
                     for path, _, names in os.walk(folder) for name in names}
        # Where a distribution has places of its own.
        moved = {"/usr/share/zsh/vendor-completions": prefix + "/share/zsh/site-functions",
                 "/lib/systemd/system": prefix + "/lib/systemd/system"}
        for path in re.findall(r"(?m)^-.* \.(/\S+)$", packaged):
            path = re.sub(r"\.gz$", "", path)
            if os.path.basename(path) in ("changelog", "copyright"):
                continue
            place, name = os.path.split(path)
            place = moved.get(place, re.sub("^/usr(?=/)", prefix, place))
            self.assertIn(os.path.join(place, name), installed)
        with open(f"{folder}{prefix}/lib/systemd/system/braid@.service", encoding="utf-8") as file:
            self.assertIn(f"ExecStart={prefix}/bin/braid run", file.read())


class Package(Installed):
    # The user's account, which Debian's packages leave, so that nobody else gets its number.
    STAYS = {"/etc/passwd", "/etc/passwd-", "/etc/group", "/etc/group-", "/etc/shadow",
             "/etc/shadow-", "/etc/gshadow", "/etc/gshadow-"}

    def traces(self):
        """Files of the package or of what runs by it, and who may do what with resolv.conf."""
        found = self.machine.run("find", "/etc", "/usr", "/lib/systemd", "/var/lib", "/run", "-xdev",
                                 "-name", "*braid*", "!", "-path", "/var/lib/dpkg/*").stdout.split()
        return sorted(found), self.machine.run("getfacl", "/etc/resolv.conf").stdout

    def test_installed_upgraded_removed_and_purged(self):
        self.set_up(client=EVERYTHING_OF_A_CLIENT)
        self.daemon, self.key = self.client, self.tunnel.branch
        self.machine = Machine(self.client_ns)
        before, traces = self.state(self.client_ns), self.traces()
        package = machine.package()
        said = self.machine.install(package)
        self.assertNotRegex(said.stderr.lower(), "error|warning|failed")
        self.assertEqual(self.machine.run("stat", "-c", "%A %U %G", "/etc/braid").stdout.strip(),
                         "drwxr-x--- root braid")
        for unit in ("braid-kill-switch", "braid-leftovers"):
            self.assertEqual(self.machine.run("systemctl", "is-enabled", unit).stdout, "enabled\n")
        version = self.machine.run("braid", "--version").stdout.split()[1]
        self.assertEqual(
            version, self.machine.run("dpkg-query", "-W", "-f", "${Version}", "braid").stdout)

        self.configure()
        self.server.start()
        self.start()
        self.eventually_through_the_tunnel()
        first = self.machine.property(UNIT, "MainPID")
        self.machine.install(machine.repacked(package, self.lab.folder, version + "+next"))
        self.assertNotIn(self.machine.property(UNIT, "MainPID"), ("0", first))
        self.eventually_through_the_tunnel()

        said = self.machine.run("dpkg", "--remove", "braid")
        self.assertIn("the kill switch is off", said.stdout)
        self.assert_as_before(before, self.client_ns)
        self.machine.run("test", "-e", "/var/lib/braid")
        said = self.machine.run("dpkg", "--purge", "braid")
        self.assertIn("/etc/braid stays", said.stderr)
        self.machine.run("rm", "/etc/braid/office.key")
        self.machine.run("rm", "/etc/braid/office.json")
        self.machine.run("rmdir", "/etc/braid")
        self.assertEqual(self.traces(), traces)

    def test_where_no_systemd_runs(self):
        """As in the making of an image: nothing is started, nothing of this machine is touched."""
        script = """
            set -e
            mount -t tmpfs none "$1"
            mkdir "$1/changes" "$1/work" "$1/root"
            mount -t overlay -o lowerdir=/,upperdir="$1/changes",workdir="$1/work" none "$1/root"
            mount -t proc proc "$1/root/proc"
            chroot "$1/root" dpkg --install "$2"
            chroot "$1/root" braid --version
            for unit in kill-switch leftovers; do
              test -L "$1/root/etc/systemd/system/sysinit.target.wants/braid-$unit.service"
            done
            chroot "$1/root" dpkg --purge braid
            echo "left:"
            cd "$1/changes"
            find . -name '*braid*' ! -path './var/lib/dpkg/*' ! -type c"""
        self.set_up()
        folder = os.path.join(self.lab.folder, "image")
        os.mkdir(folder)
        done = self.client_ns.run("unshare", "--mount", "sh", "-c", script, "-", folder,
                                  machine.package(), check=False, timeout=120)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertEqual(done.stdout.partition("left:\n")[2], "", done.stderr)

    def test_nothing_to_complain_about(self):
        done = run("lintian", "--fail-on", "error,warning", "--allow-root",
                   machine.package(), check=False, timeout=300)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
