"""Text for people, with colours where the terminal shows them."""
import os
import sys

COLOURS = (sys.stdout.isatty() and "NO_COLOR" not in os.environ and
           os.environ.get("TERM") != "dumb")


def tinted(code, text):
    return f"\x1b[{code}m{text}\x1b[0m" if COLOURS and text else text


def headline(text):
    print("\n" + tinted("1;36", f"── {text} " + "─" * max(0, 74 - len(text))), flush=True)


def note(text):
    print(tinted(2, text), flush=True)
