"""Names: what programs ask of name servers past the tunnel, the rules that go by names, and flows that
say theirs first. The machines are drawn in machines.py; the far one has dnsmasq.
"""
import socket
import ssl
import threading

import socks5
from lab import eventually
from machines import DIRECT, FAR, PORT, SERVER, Machines, seen_as
from test_egress import FAR_NETWORKS, family_of
from test_socks5 import GROUP, PROVIDER, THROUGH

NAMES = {"www.shop.test": "10.40.1.7", "cdn.test": "10.40.1.8", "six.test": "fd40::7"}
LISTEN = ["10.40.1.7/32", "10.40.1.8/32", "fd40::7/128"]
TLS_PORT, HTTP_PORT = 7443, 7080


class Names(Machines):
    def start_with(self, rules, *socks_options, **proxy):
        self.set_up(client={"proxy": {
            "rules": rules, "groups": {GROUP: {"upstreams": [{"address": f"{PROVIDER[4]}:1080"}]}},
            **proxy}})
        for address in LISTEN:
            self.far.ip(f"addr add {address} dev lo")
        for route in ("10.40.1.7/32 via 10.40.1.2", "10.40.1.8/32 via 10.40.1.2",
                      "fd40::7/128 via fd40::2"):
            self.provider.ip(f"route add {route}")
        self.socks = socks5.Server(self.provider, 1080, *socks_options)
        self.dnsmasq = self.far.start(
            "dnsmasq", "dnsmasq", "--keep-in-foreground", "--no-resolv", "--no-hosts", "--log-queries",
            "--log-facility=-", "--local-ttl=60", "--user=root", "--pid-file=",
            *(f"--address=/{name}/{address}" for name, address in NAMES.items()),
            "--cname=alias.test,www.shop.test", f"--host-record=www.shop.test,{NAMES['www.shop.test']}",
            *(f"--txt-record=long.test,{number}{'x' * 200}" for number in range(8)),
            "--local=/test/")
        socks5.wait_for_listener(self.far, 53)
        self.tunnel.start()
        self.eventually_carried()

    def eventually_carried(self):
        eventually(lambda: self.dig("cdn.test") == NAMES["cdn.test"], 10, "names are answered")

    def dig(self, name, *options, server=FAR[4], kind="A"):
        return self.client_ns.run(
            "dig", "+short", "+nocookie", "+time=2", "+tries=1", *options, f"@{server}", name, kind,
            check=False).stdout.strip()

    def dns(self):
        return self.client.status()["egress"]["dns"]

    def asked(self, name):
        """How often the far server has been."""
        return sum(f"] {name} from" in line for line in self.dnsmasq.err().splitlines())

    EVERYTHING_OUT = [{"match": {"prefix": FAR_NETWORKS}, "to": GROUP}]

    # --- DNS ---

    def test_queries_through_a_server_are_answered_and_kept(self):
        self.start_with(self.EVERYTHING_OUT)
        self.assertEqual(self.dig("www.shop.test"), NAMES["www.shop.test"])
        self.assertEqual(self.dig("six.test", kind="AAAA", server=FAR[6]), NAMES["six.test"])
        for _ in range(5):
            self.assertEqual(self.dig("www.shop.test"), NAMES["www.shop.test"])
        self.assertEqual(self.asked("www.shop.test"), 1)
        self.assertEqual(self.dig("nothing.test"), "")
        # Too long for a datagram: dig asks again by TCP, which goes as any flow does.
        self.assertEqual(self.dig("long.test", "+bufsize=512", kind="TXT").count("x"), 8 * 200)
        eventually(lambda: self.dns()["from_cache"] >= 5, 10, "it is told")
        self.assertEqual(self.dns()["timed_out"], 0)

    def test_where_no_server_relays_datagrams_they_go_by_tcp(self):
        self.start_with(self.EVERYTHING_OUT, "--no-udp")
        self.assertEqual(self.dig("www.shop.test"), NAMES["www.shop.test"])
        self.assertEqual(self.dig("six.test", kind="AAAA"), NAMES["six.test"])
        eventually(lambda: self.dns()["over_tcp"] >= 2, 10, "it is told")

    def test_servers_of_the_configuration_are_asked_instead(self):
        self.start_with([{"match": {"prefix": [*FAR_NETWORKS, "192.0.2.0/24"]}, "to": "direct"}],
                        dns={"servers": ["10.40.1.9", FAR[4]], "timeout_s": 2})
        self.assertEqual(self.dig("cdn.test", server="192.0.2.53"), NAMES["cdn.test"])
        # The first one is silent; by now that is known.
        self.assertEqual(self.dig("www.shop.test", "+tcp", server="192.0.2.53"),
                         NAMES["www.shop.test"])

    def test_who_is_not_answered_is_told_so(self):
        self.start_with(self.EVERYTHING_OUT, dns={"timeout_s": 1})
        answer = self.client_ns.run("dig", "+time=4", "+tries=1", "@10.40.1.77", "cdn.test",
                                    check=False).stdout
        self.assertIn("SERVFAIL", answer)

    # --- Rules by name ---

    def seen(self, address):
        return seen_as(self.client_ns, address)

    def test_rules_by_names_that_answers_have_told(self):
        rules = [{"match": {"domain": "cdn.test"}, "to": "direct"},
                 {"match": {"domain_suffix": "shop.test"}, "to": GROUP},
                 {"match": {"prefix": f"{FAR[4]}/32"}, "to": "direct"}]
        self.start_with(rules)
        self.assertEqual(self.seen(NAMES["www.shop.test"]), SERVER[4], "nobody has asked yet")
        self.assertEqual(self.dig("alias.test"), f"www.shop.test.\n{NAMES['www.shop.test']}")
        eventually(lambda: self.seen(NAMES["www.shop.test"]) == THROUGH[4], 5, "it is known")
        self.assertEqual(self.seen(NAMES["cdn.test"]), DIRECT[4])

    def test_rules_by_names_that_came_through_the_tunnel(self):
        self.start_with([{"match": {"domain": "cdn.test"}, "to": "direct"}])
        self.assertEqual(self.dig("cdn.test"), NAMES["cdn.test"])
        eventually(lambda: self.seen(NAMES["cdn.test"]) == DIRECT[4], 5, "it is known")
        self.assertEqual(self.seen(NAMES["www.shop.test"]), SERVER[4])

    # --- Names that flows say ---

    class Host:
        """Tells who comes, after whatever they have said first."""

        def __init__(self, ns, port):
            self.listener = ns.socket(socket.AF_INET, socket.SOCK_STREAM)
            self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self.listener.bind(("0.0.0.0", port))
            self.listener.listen()
            threading.Thread(target=self._serve, daemon=True).start()

        def _serve(self):
            while True:
                try:
                    connection, address = self.listener.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(1 << 16)
                    connection.sendall(address[0].encode())

    def says(self, first, port=HTTP_PORT, address=FAR[4], expect=None):
        with self.client_ns.socket(family_of(address), socket.SOCK_STREAM) as client:
            client.settimeout(5)
            client.connect((address, port))
            if first:
                client.sendall(first)
            else:
                client.shutdown(socket.SHUT_WR)
            return client.recv(64).decode()

    def client_hello(self, name):
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = ssl.create_default_context()
        try:
            context.wrap_bio(incoming, outgoing, server_hostname=name).do_handshake()
        except ssl.SSLWantReadError:
            pass
        return outgoing.read()

    def test_flows_that_say_where_they_want_to(self):
        self.start_with([
            {"match": {"domain_suffix": "proxied.test", "protocol": "tcp"}, "to": GROUP},
            {"match": {"domain": "blocked.test"}, "to": "block"},
            {"match": {"prefix": FAR_NETWORKS, "protocol": "tcp"}, "to": "direct",
             "early_accept": True}])
        host = self.Host(self.far, HTTP_PORT)
        self.addCleanup(host.listener.close)
        self.assertEqual(self.says(b"GET / HTTP/1.1\r\nHost: other.test\r\n\r\n"), DIRECT[4])
        self.assertEqual(self.says(b"GET / HTTP/1.1\r\nHost: a.proxied.test\r\n\r\n"), THROUGH[4])
        self.assertEqual(self.says(self.client_hello("www.proxied.test")), THROUGH[4])
        self.assertEqual(self.says(self.client_hello("www.other.test")), DIRECT[4])
        with self.assertRaises(OSError):
            self.says(self.client_hello("blocked.test"))
        # Who waits for the other end to speak, or says nothing, goes on without.
        self.assertEqual(self.seen(FAR[4]), DIRECT[4])
        self.assertEqual(self.says(b""), DIRECT[4])

    def test_a_group_that_is_asked_by_name(self):
        self.set_up(client={"proxy": {
            "rules": [{"match": {"domain": "cdn.test"}, "to": GROUP},
                      {"match": {"prefix": f"{FAR[4]}/32"}, "to": "direct"}],
            "groups": {GROUP: {"upstreams": [{"address": f"{PROVIDER[4]}:1080"}], "names": True}}}})
        # To the server the name is another machine than to the client.
        socks5.Server(self.provider, 1080, "--name", f"cdn.test={FAR[4]}")
        self.dnsmasq = self.far.start("dnsmasq", "dnsmasq", "--keep-in-foreground", "--no-resolv",
                                      "--no-hosts", "--user=root", "--pid-file=",
                                      "--address=/cdn.test/192.0.2.99")
        socks5.wait_for_listener(self.far, 53)
        self.tunnel.start()
        eventually(lambda: self.dig("cdn.test") == "192.0.2.99", 10, "names are answered")
        eventually(lambda: seen_as(self.client_ns, "192.0.2.99") == THROUGH[4], 5, "by its name")
