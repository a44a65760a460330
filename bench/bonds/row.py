"""What a row is: parts that are measured in turn, and what their medians must reach."""
import dataclasses
from collections.abc import Callable


@dataclasses.dataclass(frozen=True)
class Goal:
    """`measure` takes the medians of the row's figures; what it lacks ends in a KeyError."""

    text: str
    measure: Callable
    least: float = None
    most: float = None
    unit: str = ""
    digits: int = 2

    def is_met(self, value):
        """Nothing where the figure is only shown."""
        if self.least is None and self.most is None:
            return None
        return value >= self.least if self.least is not None else value <= self.most

    def wanted_text(self):
        if self.least is not None:
            return "at least " + self.show(self.least)
        return "at most " + self.show(self.most) if self.most is not None else "–"

    def show(self, value):
        return f"{value:,.{self.digits}f}{self.unit}"


@dataclasses.dataclass(frozen=True)
class Part:
    """One measurement; `measure` takes the seconds and those of warm-up and returns figures.

    Those with the same `same_as` are one: what a link carries alone is measured once a round, for
    all rows that compare with it. They have one figure, each with its own name for it.
    """

    name: str
    measure: Callable
    fixed_seconds: float = 2.5  # beside both
    takes_seconds: bool = True
    needs: str = None  # a program
    figure: str = None
    same_as: tuple = None

    def seconds(self, seconds, warm_up):
        return self.fixed_seconds + (seconds + warm_up if self.takes_seconds else 0)


class Row:
    """`parts` are measured in turn; the order changes from round to round."""

    def __init__(self, name, about, links, parts, goals, why_not=lambda: None):
        self.name, self.about = name, about
        self.links = links
        self.parts, self.goals = parts, goals
        self.why_not = why_not  # why this build cannot be measured
