"""The samples of a run: added one by one, put beside each other round by round, kept as JSON."""
import dataclasses
import json
import os
import statistics


@dataclasses.dataclass(frozen=True)
class Spread:
    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values):
        values = list(values)
        if not values:
            return None
        return cls(statistics.median(values), min(values), max(values))


class Results:
    """`contenders` are objects with their name, kind and version; `about` tells of the machine."""

    def __init__(self, about, contenders, cases):
        self.about = about
        self.contenders = contenders
        self.cases = cases
        self.samples = {}  # by figure, contender and round
        self.failures = {}  # by case and contender: one line for each time

    def add(self, contender, round_number, figures):
        for figure, value in figures.items():
            self.samples.setdefault(figure, {}).setdefault(contender, {})[round_number] = value

    def add_failure(self, case, contender, why):
        self.failures.setdefault(case, {}).setdefault(contender, []).append(why)

    def names(self, kind=None):
        return [each["name"] for each in self.contenders if kind in (None, each["kind"])]

    def has(self, figure):
        return bool(self.samples.get(figure))

    def rounds_of(self, figure, contender):
        return self.samples.get(figure, {}).get(contender, {})

    def spread(self, figure, contender):
        return Spread.of(self.rounds_of(figure, contender).values())

    def paired(self, figure, contender, other, combine, other_figure=None):
        """What `combine` makes of both ones' values of the same round."""
        mine = self.rounds_of(figure, contender)
        others = self.rounds_of(other_figure or figure, other)
        return Spread.of(combine(mine[key], others[key]) for key in mine if key in others)

    def ratio(self, figure, contender, other):
        return self.paired(figure, contender, other, lambda a, b: a / b if b else float("inf"))

    def difference(self, figure, contender, other, other_figure=None):
        return self.paired(figure, contender, other, lambda a, b: a - b, other_figure)

    def save(self, path):
        """Whole or not at all."""
        with open(path + ".new", "w", encoding="utf-8") as file:
            json.dump(vars(self), file, indent=1, ensure_ascii=False)
        os.replace(path + ".new", path)

    @classmethod
    def load(cls, path):
        with open(path, encoding="utf-8") as file:
            kept = json.load(file)
        results = cls(kept["about"], kept["contenders"], kept["cases"])
        results.samples, results.failures = kept["samples"], kept["failures"]
        return results
