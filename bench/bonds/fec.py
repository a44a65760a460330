"""Forward error correction on one lossy link: what stays lost, and what that costs."""
import json
import os

import carriers
import lab as labs
import natives
from daemon import Identity
from links import clean, link
from row import Goal, Part, Row
from topology import server_config
from traffic import flood

LINKS = (link(50, 20, 0.03),)
PAYLOAD_BYTES = 1200
RATE_BITS_PER_S = 5e6
AUTO = {"fec": "auto"}


def why_not():
    """What `braid check` says against the key, where this build lacks it."""
    with labs.Lab() as lab:
        hub, branch = Identity(lab, "hub"), Identity(lab, "branch")
        path = os.path.join(lab.folder, "fec.json")
        with open(path, "w", encoding="ascii") as file:
            json.dump(server_config(hub, [(branch, ["10.77.0.2/32"], None)],
                                    {"tunnel": {"bonding": AUTO}}), file)
        done = labs.run(natives.braid(), "check", "--config", path, check=False)
    return None if done.returncode == 0 else (done.stderr + done.stdout).strip()


def bytes_both_ways(carrier):
    return sum(status[way]["bytes_in"] for status in [carrier.links[0].status()]
               for way in ("to_left", "to_right"))


def measure_over(links, prefix, bonding):
    def measure(seconds, warm_up):
        with carriers.braid(links, **bonding) as carrier:
            def send(for_seconds):
                return flood(carrier.server, carrier.client, carrier.address, PAYLOAD_BYTES,
                             for_seconds, RATE_BITS_PER_S / 8 / PAYLOAD_BYTES)
            send(warm_up)
            before = bytes_both_ways(carrier)
            received, sent = send(seconds)
            took_bytes = bytes_both_ways(carrier) - before
        return {f"{prefix}_lost_percent": 100 * (1 - received["received"] / sent["sent"]),
                f"{prefix}_bytes_a_datagram": took_bytes / sent["sent"]}
    return measure


def overhead_percent(medians):
    return 100 * (medians["fec_bytes_a_datagram"] / medians["no_fec_bytes_a_datagram"] - 1)


def rows():
    yield Row("fec", "UDP, 5 Mbit/s, bonding.fec: auto", LINKS,
              [Part("with FEC", measure_over(LINKS, "fec", AUTO)),
               Part("without, clean", measure_over([clean(LINKS[0])], "no_fec", {}))],
              (Goal("lost", lambda medians: medians["fec_lost_percent"], most=0.1, unit=" %",
                    digits=3),
               Goal("bytes on the link beyond those without loss and FEC", overhead_percent,
                    most=20, unit=" %", digits=1)), why_not)
