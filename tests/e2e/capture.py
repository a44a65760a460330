"""Packets as they are on a device: taken from it and put on it, from the network layer up."""
import select
import socket
import struct
import time

_ETH_P_ALL = 3
_SO_RCVBUFFORCE = 33
_OUTGOING = 4
_IP = (0x0800, 0x86DD)
ARP = (0x0806,)
_BUFFER_BYTES = 64 << 20


class Tap:
    """Sees every packet of these protocols that comes to a device (or, with outgoing=True, leaves
    by it)."""

    def __init__(self, ns, device, outgoing=False, protocols=_IP):
        self._outgoing = outgoing
        self._protocols = protocols
        self._socket = ns.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER_BYTES)
        self._socket.bind((device, _ETH_P_ALL))
        self._socket.setblocking(False)
        self._seen = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._socket.close()

    def _take(self):
        while True:
            try:
                packet, address = self._socket.recvfrom(70000)
            except BlockingIOError:
                return
            if address[1] in self._protocols and (address[2] == _OUTGOING) == self._outgoing:
                self._seen.append(packet)

    def packets(self, wanted=lambda packet: True):
        """All that came so far and are wanted."""
        self._take()
        return [packet for packet in self._seen if wanted(packet)]

    def wait(self, count, wanted=lambda packet: True, seconds=3):
        """The packets once there are `count` of them, or what came in time."""
        end = time.monotonic() + seconds
        while True:
            found = self.packets(wanted)
            left = end - time.monotonic()
            if len(found) >= count or left <= 0:
                return found
            select.select([self._socket], [], [], min(left, 0.1))

    def forget(self):
        self._take()
        self._seen.clear()


class Injector:
    """Puts whole IP packets on a device as they are: no kernel fills in or mends anything."""

    def __init__(self, ns, device, mac=b""):
        self._socket = ns.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)
        self._device = device
        self._mac = mac  # of the next machine; a TUN device has none

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._socket.close()

    def send(self, packet):
        protocol = 0x0800 if packet[0] >> 4 == 4 else 0x86DD
        self._socket.sendto(packet, (self._device, protocol, 0, 0, self._mac))


def udp_payloads(packets, port, towards=True):
    """The UDP payloads among outer packets (no fragments, no IPv6 extension headers)."""
    found = []
    for packet in packets:
        at = (packet[0] & 15) * 4 if packet[0] >> 4 == 4 else 40
        protocol = packet[9] if packet[0] >> 4 == 4 else packet[6]
        if protocol != 17 or len(packet) < at + 8:
            continue
        source, destination, length = struct.unpack_from("!HHH", packet, at)
        if (destination if towards else source) == port:
            found.append(packet[at + 8:at + length])
    return found


def addresses(packet):
    """Source and destination as text."""
    if packet[0] >> 4 == 4:
        return (socket.inet_ntop(socket.AF_INET, packet[12:16]),
                socket.inet_ntop(socket.AF_INET, packet[16:20]))
    return (socket.inet_ntop(socket.AF_INET6, packet[8:24]),
            socket.inet_ntop(socket.AF_INET6, packet[24:40]))
