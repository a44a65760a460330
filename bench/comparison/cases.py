"""What is measured: the cases, each with the figures that one run of it yields."""
import dataclasses
import time
from collections.abc import Callable

from traffic import Iperf, flood, ping, ping_pong

WARM_UP_SECONDS = 1  # of TCP, not counted
PING_INTERVAL_SECONDS = 0.01
IDLE_SECONDS = 5
IPV4_AND_UDP_BYTES = 28


@dataclasses.dataclass(frozen=True)
class Figure:
    """A number that a case yields, and how it is shown. `column` is its name beside others of the
    case; the first one of a case needs none."""

    unit: str
    column: str = ""
    digits: int = 2
    more_is_better: bool = True
    # How it is put beside the contender without a tunnel: its "ratio", the "difference" from one of
    # its figures, or not at all.
    beside: str = ""
    beside_figure: str = ""  # where it is another figure than this one


@dataclasses.dataclass(frozen=True)
class Case:
    """`measure` takes a contender and about how many seconds; it returns figures by name."""

    title: str
    about: str
    measure: Callable
    figures: dict
    charted: tuple = ()  # figures; nothing: the first one
    fixed_seconds: float = 0.7  # beside the seconds that are asked for
    times: float = 1  # so many of those
    needs: tuple = ()  # cases
    needs_processes: bool = False
    at_start: Callable = None  # all contenders at once, before there is any load


def machine_busy_seconds():
    with open("/proc/stat", encoding="ascii") as file:
        user, nice, system, _, _, irq, softirq = map(int, file.readline().split()[1:8])
    return (user + nice + system + irq + softirq) / 100  # USER_HZ


def tcp(name, *options, source="client"):
    def measure(contender, seconds):
        daemons, machine = contender.cpu_seconds(), machine_busy_seconds()
        with Iperf(contender.server, getattr(contender, source), contender.address, *options,
                   seconds=seconds, omit=WARM_UP_SECONDS) as running:
            report = running.report()
        gigabytes = sum(interval[key]["bytes"] for interval in report["intervals"]
                        for key in ("sum", "sum_bidir_reverse") if key in interval) / 1e9
        end = report["end"]
        received = sum(end[key]["bits_per_second"]
                       for key in ("sum_received", "sum_received_bidir_reverse") if key in end)
        figures = {name: received / 1e9,
                   f"{name}_machine_cpu": (machine_busy_seconds() - machine) / gigabytes}
        if contender.processes:
            figures[f"{name}_cpu"] = (contender.cpu_seconds() - daemons) / gigabytes
        return figures
    return measure


def tcp_case(name, title, about, *options, charted=(), source="client"):
    return Case(title, about, tcp(name, *options, source=source), {
        name: Figure("Gbit/s", beside="ratio"),
        f"{name}_cpu": Figure("s/GB", "daemons' CPU", 3, False),
        f"{name}_machine_cpu": Figure("s/GB", "machine's CPU", 3, False)},
        charted, fixed_seconds=0.7 + WARM_UP_SECONDS)


def udp(name, size):
    def measure(contender, seconds):
        received, _ = flood(contender.server, contender.client, contender.address, size=size,
                            seconds=seconds)
        return {name: _intact(received)["per_second"] / 1000}
    return measure


def udp_uso(contender, seconds):
    received, _ = flood(contender.server, contender.client, contender.address, size="1200-1350",
                        seconds=seconds, uso=48)
    return {"udp_uso": _intact(received)["bytes"] * 8 / received["seconds"] / 1e9}


def _intact(received):
    wrong = {key: received[key] for key in ("doubled", "damaged") if received[key]}
    if wrong or received["received"] == 0:
        raise AssertionError(f"datagrams: {wrong or 'none arrived'}")
    return received


def request_response(contender, seconds):
    got = ping_pong(contender.server, contender.client, contender.address, seconds)
    return {"rr": got["per_second"] / 1000, "rr_p50": got["p50_us"], "rr_p99": got["p99_us"]}


def ping_idle(contender, seconds):
    time.sleep(0.3)  # what the case before has left
    pings = ping(contender.client, contender.address,
                 count=max(20, round(seconds / PING_INTERVAL_SECONDS)),
                 interval=PING_INTERVAL_SECONDS)
    return {"ping_idle": _answered(pings).average_ms}


def ping_loaded(contender, seconds):
    with Iperf(contender.server, contender.client, contender.address, seconds=seconds,
               omit=WARM_UP_SECONDS) as running:
        time.sleep(WARM_UP_SECONDS)
        pings = ping(contender.client, contender.address,
                     count=max(20, round(seconds / PING_INTERVAL_SECONDS) - 20),
                     interval=PING_INTERVAL_SECONDS)
        running.report()  # it has lasted until here
    return {"ping_loaded": _answered(pings).average_ms, "ping_loaded_max": pings.longest_ms}


def _answered(pings):
    if pings.average_ms is None:
        raise AssertionError(f"none of {pings.sent} pings was answered")
    return pings


def idle(contenders):
    """Yields each one's figures; before any load."""
    before = [each.cpu_seconds() for each in contenders]
    time.sleep(IDLE_SECONDS)
    for each, cpu_seconds in zip(contenders, before):
        percent = (each.cpu_seconds() - cpu_seconds) / IDLE_SECONDS * 100 / len(each.processes)
        yield each, {"memory_idle": each.resident_mb(), "idle_cpu": percent}


def memory(contender, _seconds):
    return {"memory": contender.resident_mb()}


CASES = {
    "tcp_up": tcp_case("tcp_up", "One TCP flow, client to server", "one flow of iperf3",
                       charted=("tcp_up", "tcp_up_cpu")),
    "tcp_down": tcp_case("tcp_down", "One TCP flow, server to client",
                         "one flow of iperf3 with -R", "-R"),
    "tcp_4": tcp_case("tcp_4", "Four TCP flows, client to server",
                      "four flows of iperf3 (-P 4)", "-P", 4),
    "tcp_bidir": tcp_case("tcp_bidir", "One TCP flow each way at once, sum",
                          "two flows of iperf3 (--bidir)", "--bidir"),
    "tcp_gateway": tcp_case(
        "tcp_gateway", "One TCP flow each way at once of a host behind the client, sum",
        "two flows of iperf3 (--bidir) through the client as a gateway with NAT", "--bidir",
        source="host"),
    "udp_64": Case(
        "64-byte UDP datagrams received", "one flow, as fast as the sender gets rid of them",
        udp("udp_64", "64"), {"udp_64": Figure("1000/s", digits=1, beside="ratio")}),
    "udp_1400": Case(
        "UDP datagrams received, in packets of 1400 bytes",
        "one flow, as fast as the sender gets rid of them; no contender has to fragment",
        udp("udp_1400", str(1400 - IPV4_AND_UDP_BYTES)),
        {"udp_1400": Figure("1000/s", digits=1, beside="ratio")}),
    "udp_uso": Case(
        "UDP as QUIC stacks do it, received",
        "1200 to 1350 bytes, sent with UDP_SEGMENT, received with UDP_GRO",
        udp_uso, {"udp_uso": Figure("Gbit/s", beside="ratio")}),
    "rr": Case(
        "Request and response, one at a time", "one byte there and one back over TCP",
        request_response, {
            "rr": Figure("1000/s", beside="ratio"),
            "rr_p50": Figure("µs", "median time", 1, False),
            "rr_p99": Figure("µs", "99 % within", 1, False)}),
    "ping_idle": Case(
        "Ping, idle", "pings 10 ms apart, with nothing else going on", ping_idle,
        {"ping_idle": Figure("ms", "average", 3, False, "difference")}, fixed_seconds=0.6),
    "ping_loaded": Case(
        "Ping under a saturating TCP flow", "pings 10 ms apart during the flow of tcp_up",
        ping_loaded, {
            "ping_loaded": Figure("ms", "average", 3, False, "difference", "ping_idle"),
            "ping_loaded_max": Figure("ms", "longest", 2, False)},
        fixed_seconds=0.7 + WARM_UP_SECONDS, needs=("ping_idle",)),
    "memory": Case(
        "Resident memory of a daemon", "the larger one of both ends, at rest after start and after "
        "the cases ahead; CPU at rest", memory, {
            "memory": Figure("MB", "after load", 1, False),
            "memory_idle": Figure("MB", "idle after start", 1, False),
            "idle_cpu": Figure("% of a core", "CPU, idle", 2, False)},
        fixed_seconds=0.01, times=0, needs_processes=True, at_start=idle),
}

FIGURES = {key: figure for case in CASES.values() for key, figure in case.figures.items()}


def charted(name):
    return CASES[name].charted or tuple(CASES[name].figures)[:1]
