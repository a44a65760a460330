"""Inner packets of every kind, as bytes."""
import logging
import os

logging.getLogger("scapy.runtime").setLevel(logging.ERROR)
from scapy.all import (  # noqa: E402
    AH, GRE, ICMP, IP, TCP, UDP, ICMPv6DestUnreach, ICMPv6EchoReply, ICMPv6EchoRequest, IPOption,
    ICMPv6MLReport2, ICMPv6PacketTooBig, IPOption_Router_Alert, IPv6, IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment, IPv6ExtHdrHopByHop, IPv6ExtHdrRouting, PadN, Raw, RouterAlert, SCTP,
    SCTPChunkInit, fragment, fragment6, raw)

_filler = bytes(range(256)) * 300


def _body(size):
    return Raw(_filler[:size])


def ipv4(source, destination, mtu):
    """Name and packet, each of a flow of its own so that none may be joined with another."""
    def ip(**fields):
        return IP(src=source, dst=destination, id=fields.pop("id", 4711), **fields)
    long_udp = ip(id=99) / UDP(sport=1009, dport=9) / _body(3 * mtu)
    yield from {
        "only a header": ip(proto=253),
        "one byte": ip(proto=253) / _body(1),
        "tcp syn": ip() / TCP(sport=1001, dport=9, flags="S",
                              options=[("MSS", 1200), ("WScale", 7), ("SAckOK", b"")]),
        "tcp data": ip() / TCP(sport=1002, dport=9, flags="PA", seq=1, ack=1) / _body(777),
        "tcp with every flag": ip() / TCP(sport=1003, dport=9, flags="FSRPAUEC") / _body(9),
        "tcp of a wrong checksum": ip() / TCP(sport=1004, dport=9, flags="A",
                                              chksum=0x1234) / _body(100),
        "tcp cut short": ip(proto=6) / _body(10),
        "tcp full": ip(flags="DF") / TCP(sport=1005, dport=9, flags="A") / _body(mtu - 40),
        "udp": ip() / UDP(sport=1006, dport=9) / _body(333),
        "udp empty": ip() / UDP(sport=1007, dport=9),
        "udp without a checksum": ip() / UDP(sport=1008, dport=9, chksum=0) / _body(100),
        "udp of a wrong checksum": ip() / UDP(sport=1010, dport=9, chksum=0x1234) / _body(100),
        "udp of a wrong length": ip() / UDP(sport=1011, dport=9, len=60) / _body(10),
        "udp and bytes behind it": ip() / UDP(sport=1012, dport=9, len=20) / _body(100),
        "udp cut short": ip(proto=17) / _body(5),
        "udp full": ip() / UDP(sport=1013, dport=9) / _body(mtu - 28),
        "icmp echo": ip() / ICMP(id=7, seq=1) / _body(200),
        "icmp unreachable": ip() / ICMP(type=3, code=1) / IP(src=destination, dst=source) /
                            _body(8),
        "options": ip(options=[IPOption_Router_Alert()]) / UDP(sport=1014, dport=9) / _body(50),
        "many options": ip(options=[IPOption(b"\x01" * 40)]) / TCP(sport=1015, dport=9) / _body(50),
        "type of service": ip(tos=0xB9) / UDP(sport=1016, dport=9) / _body(50),
        "congestion": ip(tos=3) / TCP(sport=1017, dport=9, flags="A") / _body(50),
        "gre": ip() / GRE() / IP(src="1.1.1.1", dst="2.2.2.2") / _body(100),
        "esp": ip(proto=50) / _body(120),
        "ah": ip() / AH(spi=1, icv=b"x" * 12) / _body(20),
        "ospf": ip(proto=89) / _body(44),
        "sctp": ip() / SCTP(sport=1018, dport=9) / SCTPChunkInit(),
        "ipip": ip() / IP(src="1.1.1.1", dst="2.2.2.2") / TCP() / _body(100),
        "6in4": ip() / IPv6(src="fd00::1", dst="fd00::2") / TCP() / _body(100),
        "vxlan": ip() / UDP(sport=1019, dport=4789) / _body(8) / _body(500),
        "reserved protocol": ip(proto=255) / _body(64),
    }.items()
    for number, part in enumerate(fragment(long_udp, fragsize=mtu - 20)):
        yield f"fragment {number}", part
    for number, part in enumerate(fragment(ip(id=98) / TCP(sport=1020) / _body(100), fragsize=24)):
        yield f"small tcp fragment {number}", part
    for size in (21, 63, 64, 65, 127, 128, 129, 511, 1023, 1024, mtu - 2, mtu - 1, mtu):
        yield f"{size} bytes", ip(proto=253) / _body(size - 20)


def ipv6(source, destination, mtu):
    def ip(**fields):
        return IPv6(src=source, dst=destination, **fields)
    padding = PadN(optdata=b"\0" * 4)
    quoted = IPv6(src=destination, dst=source) / UDP(sport=9, dport=9)
    yield from {
        "only a header": ip(nh=59),
        "no next header, and bytes": ip(nh=59) / _body(50),
        "tcp": ip() / TCP(sport=2001, dport=9, flags="PA") / _body(777),
        "tcp full": ip() / TCP(sport=2002, dport=9, flags="A") / _body(mtu - 60),
        "tcp of a wrong checksum": ip() / TCP(sport=2003, dport=9, chksum=7, flags="A") / _body(9),
        "udp": ip() / UDP(sport=2004, dport=9) / _body(333),
        "udp without a checksum": ip() / UDP(sport=2005, dport=9, chksum=0) / _body(100),
        "udp full": ip() / UDP(sport=2006, dport=9) / _body(mtu - 48),
        "icmp echo": ip() / ICMPv6EchoRequest(id=7, data=_filler[:200]),
        "icmp reply": ip() / ICMPv6EchoReply(id=7, data=_filler[:20]),
        "icmp unreachable": ip() / ICMPv6DestUnreach(code=4) / quoted,
        "icmp too big": ip() / ICMPv6PacketTooBig(mtu=1300) / quoted,
        "multicast report": ip(hlim=9) / ICMPv6MLReport2(),
        "hop by hop": ip() / IPv6ExtHdrHopByHop(options=[padding]) / UDP(sport=2007) / _body(50),
        "router alert": ip() / IPv6ExtHdrHopByHop(options=[RouterAlert(value=5)]) /
                        TCP(sport=2008, flags="A") / _body(50),
        "routing": ip() / IPv6ExtHdrRouting(addresses=["fd00::1"], segleft=0, type=4) /
                   UDP(sport=2009) / _body(50),
        "destination": ip() / IPv6ExtHdrDestOpt(options=[padding]) / TCP(sport=2010, flags="A") /
                       _body(50),
        "several": ip() / IPv6ExtHdrHopByHop(options=[padding]) /
                   IPv6ExtHdrDestOpt(options=[padding]) /
                   IPv6ExtHdrRouting(addresses=["fd00::1"], segleft=0, type=4) /
                   IPv6ExtHdrDestOpt(options=[padding, padding, padding]) / UDP(sport=2011) /
                   _body(500),
        "atomic fragment": ip() / IPv6ExtHdrFragment(id=5) / UDP(sport=2012) / _body(50),
        "fragment of tcp": ip() / IPv6ExtHdrFragment(id=6, offset=20, nh=6) / _body(64),
        "flow label": ip(fl=0xABCDE, tc=0xB9) / UDP(sport=2013) / _body(50),
        "gre": ip() / GRE() / IP(src="1.1.1.1", dst="2.2.2.2") / _body(100),
        "esp": ip(nh=50) / _body(120),
        "ospf": ip(nh=89) / _body(44),
        "sctp": ip() / SCTP(sport=2014, dport=9) / SCTPChunkInit(),
        "4in6": ip() / IP(src="1.1.1.1", dst="2.2.2.2") / TCP() / _body(100),
        "extension cut short": ip(nh=60) / Raw(b"\x11\x09\0\0"),
        "tcp cut short": ip(nh=6) / _body(10),
    }.items()
    long_udp = ip() / IPv6ExtHdrFragment(id=77) / UDP(sport=2015, dport=9) / _body(3 * mtu)
    for number, part in enumerate(fragment6(long_udp, mtu)):
        yield f"fragment {number}", part
    for size in (41, 1023, 1280, mtu - 1, mtu):
        yield f"{size} bytes", ip(nh=253) / _body(size - 40)


def built(named_packets):
    """The same as bytes."""
    return [(name, raw(packet)) for name, packet in named_packets]


def forwarded(packet, hops=1):
    """What a packet is after so many routers."""
    packet = bytearray(packet)
    if packet[0] >> 4 == 6:
        packet[7] -= hops
        return bytes(packet)
    packet[8] -= hops
    packet[10:12] = b"\0\0"
    packet[10:12] = checksum(packet[:(packet[0] & 15) * 4]).to_bytes(2, "big")
    return bytes(packet)


def checksum(data):
    """RFC 1071."""
    if len(data) % 2:
        data = bytes(data) + b"\0"
    total = sum(int.from_bytes(data[i:i + 2], "big") for i in range(0, len(data), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def transport_checksum_is_right(packet):
    """Of a whole TCP or UDP packet without extension headers; UDP over IPv4 may have none."""
    if packet[0] >> 4 == 4:
        at, protocol, ends = (packet[0] & 15) * 4, packet[9], packet[12:20]
        packet = packet[:int.from_bytes(packet[2:4], "big")]
    else:
        at, protocol, ends = 40, packet[6], packet[8:40]
        packet = packet[:40 + int.from_bytes(packet[4:6], "big")]
    segment = packet[at:]
    if protocol == 17 and segment[6:8] == b"\0\0":
        return packet[0] >> 4 == 4
    pseudo = ends + len(segment).to_bytes(4, "big") + bytes([0, 0, 0, protocol])
    return checksum(pseudo + segment) == 0


def ip_header_checksum_is_right(packet):
    return packet[0] >> 4 == 6 or checksum(packet[:(packet[0] & 15) * 4]) == 0


def udp_packet(source, destination, size=100, sport=1234, dport=9):
    kind = IPv6 if ":" in source else IP
    return raw(kind(src=source, dst=destination) / UDP(sport=sport, dport=dport) / _body(size))


def tcp_train(source, destination, count, size, ids="counting", ttl=64):
    """Packets of one flow behind each other, as a sender's segmentation makes them."""
    train, sequence = [], 1000
    for number in range(count):
        last = number == count - 1
        body = _body(size // 3 if last else size)
        flags = "PA" if last else "A"
        tcp = TCP(sport=3001, dport=9, flags=flags, seq=sequence, ack=5,
                  options=[("NOP", None), ("NOP", None), ("Timestamp", (77, 88))])
        if ":" in source:
            train.append(raw(IPv6(src=source, dst=destination, hlim=ttl) / tcp / body))
        else:
            identity = {"counting": 100 + number, "zero": 0,
                        "random": int.from_bytes(os.urandom(2), "big")}[ids]
            flags = "DF" if ids == "zero" else 0
            train.append(raw(IP(src=source, dst=destination, id=identity, flags=flags, ttl=ttl) /
                             tcp / body))
        sequence += size
    return train
