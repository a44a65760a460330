#!/usr/bin/python3
"""Includes go down only: main → cli → slowpath → egress → fastpath → bonding → io → base."""
import os
import re
import sys

SOURCES = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "src")
LAYERS = ["base", "io", "bonding", "fastpath", "egress", "slowpath", "cli", "main"]
BESIDE = ("linkem", "bench", "tests")  # which may use src/, and not the other way round


def layer_of(path):
    """Of a path below src/; a file beside the folders is the program itself."""
    folder = path.split("/")[0]
    return folder if folder in LAYERS else "main"


def includes(path):
    with open(os.path.join(SOURCES, path), encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            found = re.match(r'\s*#\s*include\s+"([^"]+)"', line)
            if found:
                yield number, found[1]


def mistakes():
    for folder, _, names in os.walk(SOURCES):
        for name in sorted(names):
            if not name.endswith((".cc", ".h")):
                continue
            path = os.path.relpath(os.path.join(folder, name), SOURCES)
            layer = layer_of(path)
            for number, included in includes(path):
                known = os.path.isfile(os.path.join(SOURCES, included))
                if known and LAYERS.index(layer_of(included)) > LAYERS.index(layer):
                    yield f"src/{path}:{number}: {layer}/ must not include {included}"
                elif included.split("/")[0] in BESIDE:
                    yield f"src/{path}:{number}: src/ must not include {included}"
                elif not known and included.split("/")[0] in LAYERS:
                    yield f"src/{path}:{number}: there is no {included}"
                elif known and "/" not in included and layer != "main":
                    yield f"src/{path}:{number}: say whose {included} is"


def main():
    found = list(mistakes())
    for mistake in found:
        print(mistake)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
