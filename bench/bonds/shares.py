"""One TCP flow over all links: its share of what they carry each alone, beside MPTCP's."""
import contextlib
import threading

import carriers
from links import A, B, C, clean, D, E, F, GUARD, HALF_LOST, link_text, SINGLE, THREE, VETH
from row import Goal, Part, Row


class TcpRow(Row):
    """One TCP flow over all links. `reference` are those that it is compared with, each alone;
    `meanwhile` is what happens to the links, as a context."""

    def __init__(self, name, links, congestion_control, least, reference=None, beside_mptcp=True,
                 reaches_mptcp=False, meanwhile=contextlib.nullcontext):
        self.reference = range(len(links)) if reference is None else reference
        self.least = least
        self.beside_mptcp, self.reaches_mptcp = beside_mptcp, reaches_mptcp
        self.meanwhile = meanwhile
        self.congestion_control = congestion_control
        super().__init__(f"{name}-{congestion_control}", f"one TCP flow, {congestion_control}",
                         links, list(self._parts(links)), list(self._goals()))

    def _parts(self, links):
        yield self._part("braid", "braid", carriers.braid, links, self.meanwhile)
        for n in self.reference:
            yield self._alone(f"clean{n + 1}", f"braid over link {n + 1}, clean", carriers.braid,
                              clean(links[n]))
        if len(links) > 1 and self.beside_mptcp:
            yield self._part("mptcp", "MPTCP", carriers.mptcp, links, self.meanwhile)
        if self.beside_mptcp:
            for n in self.reference:
                yield self._alone(f"plain{n + 1}", f"TCP over link {n + 1}", carriers.bare, links[n])

    def _alone(self, figure, name, carrier_of, link):
        return self._part(figure, name, carrier_of, [link], same_as=(
            carrier_of.__name__, self.congestion_control, link_text(link)))

    def _part(self, figure, name, carrier_of, links, meanwhile=contextlib.nullcontext,
              same_as=None):
        def measure(seconds, warm_up):
            with carrier_of(links) as carrier, meanwhile(carrier):
                return {figure: carriers.tcp_mbps_over(carrier, self.congestion_control, seconds,
                                                       warm_up)}
        return Part(name, measure, needs=carriers.needed_program(carrier_of), figure=figure,
                    same_as=same_as)

    def _goals(self):
        yield Goal("of the clean links", self.share, least=self.least, digits=3)
        if self.reaches_mptcp:
            yield Goal("beside MPTCP's share", lambda medians: self.share(medians) /
                       self.mptcp_share(medians), least=1, digits=3)

    def share(self, medians):
        return medians["braid"] / self.sum_of("clean", medians)

    def mptcp_share(self, medians):
        return medians["mptcp"] / self.sum_of("plain", medians)

    def sum_of(self, kind, medians):
        return sum(medians[f"{kind}{n + 1}"] for n in self.reference)


@contextlib.contextmanager
def second_link_flaps(carrier):
    """A second without it, a second with it."""
    ended = threading.Event()

    def flap():
        while not ended.wait(1):
            carrier.links[1].down()
            ended.wait(1)
            carrier.links[1].up()
    thread = threading.Thread(target=flap)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def rows():
    for congestion_control in carriers.CONGESTION_CONTROLS:
        is_bbr = congestion_control == "bbr"
        for name, links in (("A", A), ("B", B), ("C", C), ("D", D), ("E", E), ("F", F)):
            least = 0.95 if is_bbr else 0.85 if name in "CDE" else 0.92
            yield TcpRow(name, links, congestion_control, least, reaches_mptcp=is_bbr)
        yield TcpRow("single", SINGLE, congestion_control, None if is_bbr else 0.9)
        yield TcpRow("three", THREE, congestion_control, 0.93)
        yield TcpRow("guard", GUARD, congestion_control, 0.98, reference=(0,))
        yield TcpRow("flap", A, congestion_control, 0.9, reference=(0,),
                     meanwhile=second_link_flaps)
        # MPTCP mostly fails to join over half of a link.
        yield TcpRow("half-lost", HALF_LOST, congestion_control, 0.9, reference=(0,),
                     beside_mptcp=False)
        yield TcpRow("veth", VETH, congestion_control, 0.9, reference=(0,), beside_mptcp=False)
