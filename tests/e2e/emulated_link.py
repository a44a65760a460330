"""A link between two machines that is slow, far or lossy: linkem in a namespace between them.

    left ──veth── left (machine of the link) right ──veth── right
                        └────── linkem ──────┘
"""
import json

import natives
from lab import LabError, eventually


def settings_text(rate_mbps=None, delay_ms=None, jitter_ms=None, loss=None, burst_loss=None,
                  queue_kb=None, reorder=None):
    """As linkem takes them. `loss` is a share; `burst_loss` a share and a mean length in frames;
    `reorder` a share and the milliseconds that such frames are held back for. A rate of 0 is none.
    """
    words = []
    if rate_mbps is not None:
        words += ["rate", f"{rate_mbps:.6f}mbit"]
    if delay_ms is not None:
        words += ["delay", f"{delay_ms:.6f}ms"]
    if jitter_ms is not None:
        words += ["jitter", f"{jitter_ms:.6f}ms"]
    if loss is not None:
        words += ["loss", f"{loss * 100:.6f}%"]
    if burst_loss is not None:
        words += ["burst-loss", f"{burst_loss[0] * 100:.6f}%,{burst_loss[1]}"]
    if queue_kb is not None:
        words += ["queue", f"{queue_kb}KB"]
    if reorder is not None:
        words += ["reorder", f"{reorder[0] * 100:.6f}%,{reorder[1]:.6f}ms"]
    return " ".join(words)


class EmulatedLink:
    """
    Joins two machines as Lab.link does, with linkem in between. Each end's device is called as the
    machine at the other end, or, where there are several links, `name`.

    The settings are those of settings_text(), for both directions; `to_left` and `to_right` hold
    what is different in one, as dictionaries.
    """

    def __init__(self, lab, left, left_addresses, right, right_addresses, name=None, mtu=1500,
                 to_left=None, to_right=None, seed=1, options=(), **settings):
        self.left, self.right = left, right
        self.left_device, self.right_device = name or right.short, name or left.short
        self.machine = lab.namespace(f"{name or left.short + '-' + right.short}-link")
        # It only hands frames on; its kernel is to send none of its own.
        for interfaces in ("all", "default"):
            self.machine.sysctl(f"net.ipv6.conf.{interfaces}.disable_ipv6", 1)
        for ns, device, end, addresses in ((left, self.left_device, "left", left_addresses),
                                           (right, self.right_device, "right", right_addresses)):
            ns.ip(f"link add name {device} mtu {mtu} type veth "
                  f"peer name {end} mtu {mtu} netns {self.machine.name}")
            for address in addresses.split():
                ns.ip(f"addr add {address} dev {device}" + (" nodad" if ":" in address else ""))
            ns.ip(f"link set {device} up")
            self.machine.ip(f"link set {end} up")
            # The kernel takes up to a second to notice that a link is up, unless it is asked.
            ns.ip(f"link show dev {device}")
            self.machine.ip(f"link show dev {end}")
        one_way = []
        for option, different in (("--to-left", to_left), ("--to-right", to_right)):
            if different:
                one_way += [option, settings_text(**different)]
        words = settings_text(**settings).split()
        both = [f"--{word}" if number % 2 == 0 else word for number, word in enumerate(words)]
        self.process = self.machine.start(
            "linkem", natives.path("linkem"), "left", "right", "--json", "--seed", seed, *both,
            *one_way, *options, takes_input=True)
        self._answers = 0
        self._read_answer()

    def _read_answer(self):
        """The next line."""
        def complete():
            lines = self.process.out().split("\n")[:-1]
            if len(lines) <= self._answers and self.process.poll() is not None:
                raise LabError(f"linkem has ended: {self.process.err()}")
            return lines[self._answers:]
        line = eventually(complete, 10, "an answer of linkem", 0.005)[0]
        self._answers += 1
        return line

    def command(self, line):
        """Returns the answer, which is no error."""
        self.process.write(line + "\n")
        answer = self._read_answer()
        if answer.startswith("error"):
            raise LabError(f"linkem: {line}: {answer}")
        return answer

    def set(self, to=None, **settings):
        """`to`: "left" or "right" for one direction."""
        self._command_to(to, "set " + settings_text(**settings))

    def down(self, to=None):
        """Everything is lost, also what is under way; no device goes down."""
        self._command_to(to, "down")

    def up(self, to=None):
        self._command_to(to, "up")

    def _command_to(self, to, line):
        self.command(f"to-{to} {line}" if to else line)

    def status(self):
        return json.loads(self.command("status"))

    def stop(self):
        """Ends it; frames pass no more. Returns the last status."""
        code = self.process.stop()
        if code != 0:
            raise LabError(f"linkem: exit code {code}: {self.process.err()}")
        return json.loads(self._read_answer())
