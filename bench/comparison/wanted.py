"""What braid wants to reach, and whether a run has shown it."""
import dataclasses
from collections.abc import Callable

from contenders import CIPHERS, NO_TUNNEL

AES, CHACHA = CIPHERS


@dataclasses.dataclass(frozen=True)
class Goal:
    """`measure` returns nothing where the run lacks what it takes."""

    figure: str
    measure: Callable
    least: float = None
    most: float = None  # or below it, where `strictly`
    strictly: bool = False
    unit: str = ""
    digits: int = 2

    def is_met(self, value):
        if self.least is not None:
            return value >= self.least
        return value < self.most if self.strictly else value <= self.most

    def wanted_text(self):
        if self.least is not None:
            return "at least " + self.show(self.least)
        return ("below " if self.strictly else "at most ") + self.show(self.most)

    def show(self, value):
        return f"{value:,.{self.digits}f}{self.unit}"


def median(spread):
    return spread and spread.median


def value(figure, scale=1):
    def measure(results):
        spread = results.spread(figure, AES)
        return spread and spread.median * scale
    return measure


def ratio_to(other, figure, contender=AES):
    return lambda results: median(results.ratio(figure, contender, other))


def above(other, figure, other_figure):
    return lambda results: median(results.difference(figure, AES, other, other_figure))


def ratio_to_best_peer(figure, best):
    """`best` picks by the median: max or min."""
    def measure(results):
        medians = {name: median(results.spread(figure, name)) for name in results.names("peer")}
        medians = {name: each for name, each in medians.items() if each is not None}
        if not medians:
            return None
        return median(results.ratio(figure, AES, best(medians, key=medians.get)))
    return measure


_TIMES = {"unit": " ×"}
_MS = {"unit": " ms", "digits": 3}

WANTED = [
    Goal("one TCP flow, AES-256-GCM, of no tunnel", ratio_to(NO_TUNNEL, "tcp_up"), least=0.55),
    Goal("one TCP flow, AES-256-GCM, of wireguard-go", ratio_to("wireguard-go", "tcp_up"),
         least=10, **_TIMES),
    Goal("one TCP flow, ChaCha20-Poly1305, of no tunnel", ratio_to(NO_TUNNEL, "tcp_up", CHACHA),
         least=0.36),
    Goal("four TCP flows, AES-256-GCM, of no tunnel", ratio_to(NO_TUNNEL, "tcp_4"), least=0.45),
    Goal("64-byte UDP datagrams received per second", value("udp_64", 1000), least=350000,
         digits=0),
    Goal("64-byte UDP datagrams, of the best installed peer", ratio_to_best_peer("udp_64", max),
         least=3, **_TIMES),
    Goal("ping, idle, above no tunnel", above(NO_TUNNEL, "ping_idle", "ping_idle"), most=0.18,
         **_MS),
    Goal("ping, idle, of the best installed peer's", ratio_to_best_peer("ping_idle", min), most=1,
         strictly=True, **_TIMES),
    Goal("ping under a saturating TCP flow, above the idle one without tunnel",
         above(NO_TUNNEL, "ping_loaded", "ping_idle"), most=2, **_MS),
    Goal("ping under a saturating TCP flow, of the best installed peer's",
         ratio_to_best_peer("ping_loaded", min), most=1, strictly=True, **_TIMES),
    Goal("CPU seconds per gigabyte, both ends together, of the best installed peer's",
         ratio_to_best_peer("tcp_up_cpu", min), most=0.5, **_TIMES),
]
