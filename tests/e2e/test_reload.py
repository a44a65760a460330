"""A daemon that is given another configuration while it runs, and one whose tunnel stops and starts.

    client ──veth── server ──veth── other
"""
import base64
import json
import os
import re
import signal
import socket
import time

import natives
from bond import join
from daemon import Daemon, Identity, merged
from lab import eventually, run
from lab_test import LabTest, each
from topology import INNER, Tunnel, client_config
from traffic import Iperf, Pinger, ping


def write(daemon, change):
    """Changes the file of a daemon, and nothing else."""
    daemon.config = merged(daemon.config, change)
    with open(daemon.config_path, "w", encoding="ascii") as file:
        json.dump(daemon.config, file, indent=1)


def reload(daemon, *options, check=True):
    return run(natives.braid(), "reload", "--socket", daemon.socket_path, *options, check=check)


def call(daemon, verb, **params):
    """What the control socket says to it."""
    request = json.dumps({"v": 1, "verb": verb, "params": params}) + "\n"
    return json.loads(daemon.call_raw(request.encode()))["result"]


class Reload(LabTest):
    beside_others = True

    def test_nothing_changes_when_nothing_differs(self):
        tunnel = Tunnel(self.lab).start()
        handshake = tunnel.client.peer()["last_handshake_s"]
        self.assertIn("nothing differs", reload(tunnel.client).stdout)
        self.assertGreaterEqual(tunnel.client.peer()["last_handshake_s"], handshake)

    def test_a_peer_comes_and_goes_while_another_goes_on(self):
        tunnel = Tunnel(self.lab).start()
        other_ns = self.lab.namespace("other")
        self.lab.link(other_ns, "10.20.2.1/24", tunnel.server_ns, "10.20.2.2/24")
        other = Identity(self.lab, "other")
        client = Daemon(other_ns, "other", client_config(other, tunnel.hub, "10.20.2.2", number=3))
        client.start()
        pinger = Pinger(tunnel.client_ns, INNER[4][1], interval=0.02)
        peers = tunnel.server.config["tunnel"]["peers"]
        added = {"name": "other", "public_key": other.public,
                 "allowed_ips": ["10.77.0.3/32", "fd77::3/128"]}
        for _ in range(2):
            write(tunnel.server, {"tunnel": {"peers": [*peers, added]}})
            self.assertIn("+ /tunnel/peers/other", reload(tunnel.server).stdout)
            client.wait_established(seconds=8)
            self.assertEqual(ping(other_ns, INNER[4][1]).received, 3)
            write(tunnel.server, {"tunnel": {"peers": peers}})
            self.assertIn("- /tunnel/peers/other", reload(tunnel.server).stdout)
            eventually(lambda: not client.is_established(), 5, "the other client was told")
            self.assertEqual([peer["name"] for peer in tunnel.server.status()["peers"]],
                             ["branch"])
        pings = pinger.stop()
        self.assertEqual(pings.received, pings.sent, pings.text)
        self.assertTrue(tunnel.client.is_established())

    def test_prefixes_of_a_peer_move_to_another(self):
        tunnel = Tunnel(self.lab, client_owns=["10.88.0.0/24"]).start()
        tunnel.client_ns.ip("addr add 10.88.0.1/32 dev braid0")
        tunnel.server_ns.ip("route add 10.88.0.0/24 dev braid0")
        self.assertEqual(ping(tunnel.server_ns, "10.88.0.1").received, 3)
        peer = tunnel.server.config["tunnel"]["peers"][0]
        write(tunnel.server, {"tunnel": {"peers": [merged(peer, {"allowed_ips": ["10.77.0.2/32"]})]}})
        self.assertIn("~ /tunnel/peers/branch/allowed_ips", reload(tunnel.server).stdout)
        self.assertEqual(ping(tunnel.server_ns, "10.88.0.1", wait=1).received, 0)
        self.assertEqual(ping(tunnel.server_ns, INNER[4][0]).received, 3)

    def test_paths_come_go_and_change_under_load(self):
        client_ns, server_ns = self.lab.namespace("client"), self.lab.namespace("server")
        join(self.lab, client_ns, server_ns, [None, None, None])
        paths = [{"name": f"p{n}", "address": f"10.20.{n}.1", "endpoint": f"10.20.{n}.2:7700"}
                 for n in (1, 2, 3)]
        tunnel = Tunnel(self.lab, machines=(client_ns, server_ns),
                        client={"tunnel": {"paths": paths[:1]}}).start()
        pinger = Pinger(client_ns, INNER[4][1], interval=0.02)

        def names():
            return [path["name"] for path in tunnel.client.peer()["paths"]
                    if path["state"] != "down"]

        write(tunnel.client, {"tunnel": {"paths": paths}})
        reload(tunnel.client)
        eventually(lambda: names() == ["p1", "p2", "p3"], 5, "all paths are up")
        paths[0]["standby"] = True
        paths[1]["weight"] = 0.5
        write(tunnel.client, {"tunnel": {"paths": paths}})
        shown = reload(tunnel.client).stdout
        self.assertIn("~ /tunnel/paths/p1/standby: false -> true", shown)
        eventually(lambda: tunnel.client.peer()["paths"][0]["state"] == "standby", 5,
                   "the first one stands by")
        write(tunnel.client, {"tunnel": {"paths": paths[1:]}})
        reload(tunnel.client)
        eventually(lambda: names() == ["p2", "p3"], 5, "the first one is gone")
        pings = pinger.stop()
        self.assertEqual(pings.received, pings.sent, pings.text)

    def test_another_endpoint_is_gone_to(self):
        tunnel = Tunnel(self.lab).start()
        link, = tunnel.server_ns.devices() - {"lo", "braid0"}
        tunnel.server_ns.ip(f"addr add 10.20.1.3/24 dev {link}")
        peer = tunnel.client.config["tunnel"]["peers"][0]
        write(tunnel.client, {"tunnel": {"peers": [merged(peer, {"endpoints": ["10.20.1.3:7700"]})]}})
        reload(tunnel.client)
        eventually(lambda: tunnel.client.path()["remote"] == "10.20.1.3:7700", 5, "it has moved")
        tunnel.wait()
        self.assertEqual(ping(tunnel.client_ns, INNER[4][1]).received, 3)

    def test_what_is_wrong_changes_nothing(self):
        tunnel = Tunnel(self.lab).start()
        good = tunnel.client.config
        before = tunnel.client.call_raw(b'{"v":1,"verb":"config"}\n')
        for change, says in (
                ({"tunnel": {"lanes": "many"}}, "/tunnel/lanes"),
                ({"tunnel": {"peers": []}}, "/tunnel/peers"),
                ({"network": {"device": "braid7"}}, "/network/device"),
                ({"log": {"level": "debug"}, "performance": {"io": "epoll"}}, "/performance/io"),
                ({"tunnel": {"peers": [merged(good["tunnel"]["peers"][0],
                                              {"preshared_key_file": "/nowhere"})]}}, "/nowhere")):
            write(tunnel.client, change)
            done = reload(tunnel.client, check=False)
            self.assertEqual(done.returncode, 1)
            self.assertIn(says, done.stderr)
            self.assertEqual(tunnel.client.call_raw(b'{"v":1,"verb":"config"}\n'), before)
            self.assertEqual(ping(tunnel.client_ns, INNER[4][1]).received, 3)
            tunnel.client.config = good
        with open(tunnel.client.config_path, "w", encoding="ascii") as file:
            file.write("{")
        self.assertIn(tunnel.client.config_path, reload(tunnel.client, check=False).stderr)

    def test_a_dry_run_only_shows(self):
        tunnel = Tunnel(self.lab).start()
        write(tunnel.client, {"log": {"level": "warning"}, "network": {"mtu": 1400}})
        shown = reload(tunnel.client, "--dry-run").stdout
        self.assertIn('~ /log/level: "debug" -> "warning"', shown)
        self.assertIn("/network/mtu", shown)
        self.assertIn("needs a restart", shown)
        changes = json.loads(reload(tunnel.client, "-n", "--json").stdout)["changes"]
        self.assertEqual([one["needs_restart"] for one in changes], [True, False])

    def test_another_key_in_the_same_file_is_a_difference(self):
        psk, other = Identity(self.lab, "psk"), Identity(self.lab, "other")
        tunnel = Tunnel(self.lab, peer_of_both={"preshared_key_file": psk.file}).start()
        os.replace(other.file, psk.file)
        pointers = [one["pointer"] for one in
                    json.loads(reload(tunnel.client, "-n", "--json").stdout)["changes"]]
        self.assertEqual(pointers, ["/tunnel/peers/hub/preshared_key_file"])
        for daemon in tunnel.daemons:
            self.assertIn("with another key in it", reload(daemon).stdout)
            self.assertIn("nothing differs", reload(daemon).stdout)
        tunnel.wait(15)
        self.assertEqual(ping(tunnel.client_ns, INNER[4][1]).received, 3)

    def test_what_commands_have_changed_stands(self):
        tunnel = Tunnel(self.lab).start()
        call(tunnel.server, "mode", mode="redundant")
        call(tunnel.server, "throttle", total={"rate_mbps": 400}, peers={"branch": {"rate_mbps": 50}})
        write(tunnel.server, {"tunnel": {"bonding": {"reorder_max_ms": 150}},
                              "throttle": {"total": {"rate_mbps": 300}}})
        reload(tunnel.server)
        self.assertEqual(call(tunnel.server, "mode")["mode"], "redundant")
        limits = call(tunnel.server, "throttle")
        self.assertEqual(limits["total"]["send"]["rate_mbps"], 300)
        self.assertEqual([(peer["name"], peer["send"]["rate_mbps"]) for peer in limits["peers"]],
                         [("branch", 50)])
        write(tunnel.server, {"tunnel": {"bonding": {"mode": "preferred"}}})
        reload(tunnel.server)
        self.assertEqual(call(tunnel.server, "mode")["mode"], "preferred")

    def test_a_kill_switch_that_is_refused_is_not_left_behind(self):
        tunnel = Tunnel(self.lab).start()
        folder = tunnel.client.config["security"]["state_dir"]
        # Nothing can be noted in the journal.
        in_the_way = os.path.join(folder, "bring-up-braid0.json")
        os.mkdir(in_the_way)
        nat = [{"source": "10.77.0.0/24", "out": "uplink0"}]
        write(tunnel.client, {"network": {"kill_switch": True, "nat": nat}})
        self.assertEqual(reload(tunnel.client, check=False).returncode, 1)
        self.assertNotIn("kill_switch", tunnel.client_ns.run("nft", "list", "tables").stdout)
        self.assertFalse(os.path.exists(os.path.join(folder, "kill-switch.json")))
        self.assertNotIn("kill switch", " ".join(tunnel.client.status()["warnings"]))
        os.rmdir(in_the_way)
        reload(tunnel.client)
        self.assertIn("kill_switch", tunnel.client_ns.run("nft", "list", "tables").stdout)
        self.assertEqual(ping(tunnel.client_ns, INNER[4][1]).received, 3)

    def test_a_refused_sighup_names_every_mistake(self):
        tunnel = Tunnel(self.lab).start()
        write(tunnel.client, {"tunnel": {"lanes": "many"}, "log": {"level": "loud"}})
        tunnel.client.process.send_signal(signal.SIGHUP)
        eventually(lambda: "SIGHUP changed nothing" in tunnel.client.log(), 5, "it is refused")
        for pointer in ("/tunnel/lanes", "/log/level"):
            self.assertIn(pointer, tunnel.client.log())

    def test_more_peers_than_there_is_room_for_come_with_a_new_start(self):
        tunnel = Tunnel(self.lab).start()
        peers = list(tunnel.server.config["tunnel"]["peers"])
        for number in range(70):
            key = base64.b64encode(bytes([number, 7] + [9] * 30)).decode()
            peers.append({"name": f"more{number}", "public_key": key,
                          "allowed_ips": [f"10.77.1.{number}/32"]})
        write(tunnel.server, {"tunnel": {"peers": peers}})
        refused = reload(tunnel.server, check=False)
        self.assertEqual(refused.returncode, 1)
        steps = re.findall(r'"braid ([a-z]+)( --tunnel)?"', refused.stderr)
        self.assertEqual([verb for verb, _ in steps], ["stop", "reload", "start"])
        for verb, option in steps:
            run(natives.braid(), verb, *option.split(), "--socket", tunnel.server.socket_path)
        self.assertEqual(len(tunnel.server.status()["peers"]), 71)
        tunnel.wait(10)

    def test_sighup_reloads_too(self):
        tunnel = Tunnel(self.lab).start()
        write(tunnel.client, {"log": {"level": "info"}})
        tunnel.client.process.send_signal(signal.SIGHUP)
        eventually(lambda: "1 differences" in tunnel.client.log(), 5, "it has reloaded")
        self.assertTrue(tunnel.client.is_established())
        tunnel.client.process.send_signal(signal.SIGHUP)
        eventually(lambda: "0 differences" in tunnel.client.log(), 5, "and once more")

    def test_a_hundred_times_under_load_nothing_is_lost(self):
        tunnel = Tunnel(self.lab).start()
        pinger = Pinger(tunnel.client_ns, INNER[4][1], interval=0.01)
        for n in range(100):
            level = "info" if n % 2 else "debug"
            keepalive = 1 + n % 3
            for daemon in tunnel.daemons:
                peer = daemon.config["tunnel"]["peers"][0]
                write(daemon, {"log": {"level": level},
                               "tunnel": {"peers": [merged(peer, {"keepalive_s": keepalive})]}})
                reload(daemon)
        pings = pinger.stop()
        self.assertEqual(pings.received, pings.sent)
        self.assertGreater(pings.sent, 100)


class StopAndStart(LabTest):
    beside_others = True

    def call(self, daemon, *words, check=True):
        return run(natives.braid(), *words, "--socket", daemon.socket_path, check=check)

    def test_the_tunnel_stops_and_starts_while_the_daemon_answers(self):
        tunnel = Tunnel(self.lab).start()
        pid = tunnel.client.status()["pid"]
        for _ in range(3):
            self.call(tunnel.client, "stop", "--tunnel")
            status = tunnel.client.status()
            self.assertEqual((status["state"], status["pid"]), ("stopped", pid))
            self.assertIn("stopped", tunnel.client.shown_status())
            self.assertNotIn("braid0", tunnel.client_ns.ip("link").stdout)
            self.assertIn("stopped", self.call(tunnel.client, "mode", check=False).stderr)
            self.call(tunnel.client, "start")
            tunnel.wait()
            self.assertEqual(ping(tunnel.client_ns, INNER[4][1]).received, 3)
        self.call(tunnel.client, "start")  # runs already
        self.assertEqual(tunnel.client.status()["state"], "running")

    @each(io=("io_uring", "epoll"))
    def test_a_stop_and_a_start_may_be_sent_ahead(self, io):
        tunnel = Tunnel(self.lab, both={"performance": {"io": io}}).start()
        for daemon in tunnel.daemons:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
                client.settimeout(10)
                client.connect(daemon.socket_path)
                client.sendall(b'{"v":1,"verb":"stop"}\n{"v":1,"verb":"start"}\n')
                with client.makefile("rb") as answers:
                    for _ in range(2):
                        self.assertEqual(json.loads(answers.readline()), {"v": 1, "result": {}})
        tunnel.wait(10)
        self.assertEqual(ping(tunnel.client_ns, INNER[4][1]).received, 3)

    def test_a_start_whose_key_is_not_there_is_no_mistake_of_the_request(self):
        tunnel = Tunnel(self.lab).start()
        self.call(tunnel.client, "stop", "--tunnel")
        key = tunnel.client.config["security"]["private_key_file"]
        os.rename(key, key + ".away")
        error = json.loads(tunnel.client.call_raw(b'{"v":1,"verb":"start"}\n'))["error"]
        self.assertEqual(error["code"], "bad_config")
        self.assertIn(key, error["message"])
        self.assertIn("cannot be started", tunnel.client.log())
        os.rename(key + ".away", key)
        os.chmod(key, 0o644)
        error = json.loads(tunnel.client.call_raw(b'{"v":1,"verb":"start"}\n'))["error"]
        self.assertEqual(error["code"], "bad_config")
        os.chmod(key, 0o600)
        self.call(tunnel.client, "start")
        tunnel.wait()

    def test_a_start_in_between_that_fails_leaves_the_next_one_to_come(self):
        tunnel = Tunnel(self.lab).start()
        key = tunnel.client.config["security"]["private_key_file"]
        os.rename(key, key + ".away")
        tunnel.client_ns.ip("link del braid0")
        eventually(lambda: tunnel.client.status()["state"] == "failed", 2, "that is noticed")
        self.assertEqual(self.call(tunnel.client, "start", check=False).returncode, 1)
        os.rename(key + ".away", key)
        tunnel.wait(15)

    def test_what_was_to_be_started_again_stays_down_when_it_is_stopped(self):
        tunnel = Tunnel(self.lab).start()
        tunnel.client_ns.ip("link del braid0")
        eventually(lambda: tunnel.client.status()["state"] == "failed", 2, "that is noticed")
        self.call(tunnel.client, "stop", "--tunnel")
        time.sleep(2)
        self.assertEqual(tunnel.client.status()["state"], "stopped")

    def test_a_start_that_fails_says_why_and_can_be_tried_again(self):
        tunnel = Tunnel(self.lab).start()
        self.call(tunnel.client, "stop", "--tunnel")
        tunnel.client_ns.ip("tuntap add dev braid0 mode tun")
        failed = self.call(tunnel.client, "start", check=False)
        self.assertEqual(failed.returncode, 1)
        self.assertIn("braid0", failed.stderr)
        self.assertEqual(tunnel.client.status()["state"], "failed")
        tunnel.client_ns.ip("tuntap del dev braid0 mode tun")
        self.call(tunnel.client, "start")
        tunnel.wait()

    def test_a_reload_while_it_is_stopped_counts_at_the_start(self):
        tunnel = Tunnel(self.lab).start()
        self.call(tunnel.client, "stop", "--tunnel")
        peer = tunnel.client.config["tunnel"]["peers"][0]
        write(tunnel.client, {"tunnel": {"peers": [merged(peer, {"name": "centre"})]}})
        reload(tunnel.client)
        self.call(tunnel.client, "start")
        tunnel.client.wait_established("centre")

    def test_it_is_started_again_when_its_device_is_taken_away(self):
        tunnel = Tunnel(self.lab).start()
        pid = tunnel.client.status()["pid"]
        tunnel.client_ns.ip("link del braid0")
        eventually(lambda: tunnel.client.status()["state"] == "failed", 2, "that is noticed")
        self.assertIn("taken the device braid0 away", tunnel.client.shown_status())
        health = self.call(tunnel.client, "health", check=False)
        self.assertEqual(health.returncode, 2)
        self.assertIn("away", health.stdout)
        tunnel.wait(8)
        self.assertEqual(ping(tunnel.client_ns, INNER[4][1]).received, 3)
        status = tunnel.client.status()
        self.assertEqual((status["state"], status["pid"]), ("running", pid))

    def test_it_is_started_again_when_a_worker_dies(self):
        tunnel = Tunnel(self.lab, both={"performance": {"io": "epoll"}}, guarded=False)
        order = os.path.join(self.lab.folder, "die")
        tunnel.client.wrap = ["env", f"LD_PRELOAD={natives.path('libkill_worker.so')}",
                              f"BRAID_TEST_KILL_WORKER={order}"]
        tunnel.start()
        pid = tunnel.client.status()["pid"]
        with open(order, "w", encoding="ascii"):
            pass
        eventually(lambda: tunnel.client.status()["state"] == "failed", 3, "that is noticed")
        self.assertIn("a worker has died: as was asked", tunnel.client.shown_status())
        tunnel.wait(8)
        self.assertEqual(ping(tunnel.client_ns, INNER[4][1]).received, 3)
        self.assertEqual(tunnel.client.status()["pid"], pid)

    def test_a_device_of_another_name_or_namespace_goes_on(self):
        tunnel = Tunnel(self.lab).start()
        inside = self.lab.namespace("inside")
        tunnel.client_ns.ip("link set braid0 down")
        tunnel.client_ns.ip("link set braid0 name inner0")
        tunnel.client_ns.ip(f"link set inner0 netns {inside.name}")
        inside.ip("addr add 10.77.0.2/24 dev inner0")
        inside.ip("link set inner0 up")
        self.assertEqual(ping(inside, INNER[4][1]).received, 3)
        self.assertEqual(tunnel.client.status()["state"], "running")

    def test_it_stops_within_two_seconds_under_load(self):
        tunnel = Tunnel(self.lab).start()
        with Iperf(tunnel.server_ns, tunnel.client_ns, INNER[4][1], seconds=5):
            eventually(lambda: tunnel.server.peer()["rx_bytes"] > 1e7, 5, "the flow runs")
            tunnel.server.process.send_signal(signal.SIGTERM)
            eventually(lambda: tunnel.server.process.poll() is not None, 2, "it has ended")
        self.assertNotIn("braid0", tunnel.server_ns.ip("link").stdout)
