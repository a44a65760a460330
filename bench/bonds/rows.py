"""All rows, by name."""
import fec
import latency
import shares
import silence
import udp

ROWS = {row.name: row for source in (shares, udp, latency, silence, fec) for row in source.rows()}
