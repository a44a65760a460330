"""Ping through a bond that one TCP flow saturates."""
import statistics
import time

import carriers
from links import A
from row import Goal, Part, Row
from traffic import ping

INTERVAL_S = 0.05
MOST_ABOVE_BASE_MS = 25


def median_ms(pings):
    if not pings.times_ms:
        raise AssertionError(f"none of {pings.sent} pings was answered")
    return statistics.median(pings.times_ms)


def measure_with(congestion_control):
    def measure(seconds, warm_up):
        with carriers.braid(A) as carrier:
            def pings(for_seconds):
                return median_ms(ping(carrier.client, carrier.address,
                                      count=round(for_seconds / INTERVAL_S), interval=INTERVAL_S))
            idle_ms = pings(1)
            with carrier.tcp_flow(congestion_control, seconds, warm_up) as flow:
                time.sleep(warm_up)
                loaded_ms = pings(seconds - 0.5)  # the flow lasts longer
                mbps = carriers.tcp_mbps(flow.report())
        return {"ping_idle_ms": idle_ms, "ping_loaded_ms": loaded_ms, "ping_mbps": mbps}
    return measure


def rows():
    base_ms = 2 * min(link["delay_ms"] for link in A)
    goals = (
        Goal("ping, median", lambda medians: medians["ping_loaded_ms"],
             most=base_ms + MOST_ABOVE_BASE_MS, unit=" ms", digits=1),
        Goal("ping without load", lambda medians: medians["ping_idle_ms"], unit=" ms", digits=1),
        Goal("the flow meanwhile", lambda medians: medians["ping_mbps"], unit=" Mbit/s", digits=1),
    )
    for congestion_control in carriers.CONGESTION_CONTROLS:
        yield Row(f"ping-{congestion_control}",
                  f"ping while one TCP flow saturates the bond, {congestion_control}", A,
                  [Part("braid", measure_with(congestion_control))], goals)
