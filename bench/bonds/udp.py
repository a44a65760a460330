"""UDP at nine tenths of what the links carry together: what is lost on the way, what comes late."""
import carriers
from links import A, F
from row import Goal, Part, Row
from traffic import flood

SHARE_OF_LINKS = 0.9
PAYLOAD_BYTES = 1200
MOST_HELD_UP = 1.2
FRAME_BYTES = 1310  # that such a datagram takes on a link, with the tunnel's headers


def bytes_in(carrier):
    return sum(link.status()["to_right"]["bytes_in"] for link in carrier.links)


def measure_over(links):
    sum_bits_per_s = sum(link["rate_mbps"] for link in links) * 1e6
    datagrams_per_s = SHARE_OF_LINKS * sum_bits_per_s / 8 / FRAME_BYTES

    def measure(seconds, warm_up):
        with carriers.braid(links) as carrier:
            def send(for_seconds, rate):
                return flood(carrier.server, carrier.client, carrier.address, PAYLOAD_BYTES,
                             for_seconds, rate)
            _, sent = send(warm_up, datagrams_per_s)
            # A sender that was held up does not make up for it; the more it is asked for.
            held_up = min(datagrams_per_s / sent["per_second"], MOST_HELD_UP)
            before = bytes_in(carrier)
            received, sent = send(seconds, datagrams_per_s * held_up)
            offered = (bytes_in(carrier) - before) * 8 / sent["seconds"] / sum_bits_per_s
        return {"lost_percent": 100 * (1 - received["received"] / sent["sent"]),
                "late_percent": 100 * received["late"] / max(received["received"], 1),
                "offered": offered}
    return measure


GOALS = (
    Goal("lost", lambda medians: medians["lost_percent"], most=0.1, unit=" %", digits=3),
    Goal("out of order", lambda medians: medians["late_percent"], most=0.1, unit=" %", digits=3),
    Goal("of the links' sum, as they saw it", lambda medians: medians["offered"], least=0.88),
)


def rows():
    for name, links in (("A", A), ("F", F)):
        yield Row(f"udp-{name}", "UDP at 90 % of the sum", links,
                  [Part("braid", measure_over(links))], GOALS)
