"""The emulated links that the rows are measured over."""


def link(rate_mbps, delay_ms, loss=0.0, queue_kb=256):
    return {"rate_mbps": rate_mbps, "delay_ms": delay_ms, "loss": loss, "queue_kb": queue_kb}


A = (link(50, 10), link(20, 30))
B = (link(100, 5), link(100, 5))
C = (link(50, 10), link(20, 30, 0.01))
D = (link(200, 10, queue_kb=512), link(20, 100))
E = (link(40, 15, 0.005), link(40, 40, 0.005))
F = (link(300, 5, queue_kb=1024), link(100, 25, queue_kb=512))
SINGLE = (link(50, 20, 0.01),)
THREE = (link(50, 10), link(20, 30), link(10, 60))
GUARD = (link(100, 10), link(1, 150, 0.02))
HALF_LOST = (link(50, 10), link(50, 10, 0.5))
VETH = (None, None)


def clean(settings):
    return settings and {**settings, "loss": 0.0}


def link_text(settings):
    if settings is None:
        return "veth"
    return (f"{settings['rate_mbps']:g}/{settings['delay_ms']:g}/{settings['loss'] * 100:g}/"
            f"{settings['queue_kb']}")
