"""Results as Markdown that is also readable as it is."""
from cases import CASES, FIGURES
from wanted import WANTED


def number(value, digits):
    return f"{value:,.{digits}f}"


def table(head, rows):
    """Cells are padded; all but the first column is aligned to the right."""
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    lines = []
    for row in [head, None, *rows]:
        if row is None:
            lines.append("|" + "|".join("-" * (width + 1) + ("-" if column == 0 else ":")
                                        for column, width in enumerate(widths)) + "|")
            continue
        cells = [cell.ljust(width) if column == 0 else cell.rjust(width)
                 for column, (cell, width) in enumerate(zip(row, widths))]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def cell(spread, digits):
    if spread is None:
        return "–"
    text = number(spread.median, digits)
    if spread.least != spread.most:
        text += f" ({number(spread.least, digits)}–{number(spread.most, digits)})"
    return text


class Column:
    """One of a case's table: a figure, or how it is beside another contender's."""

    def __init__(self, results, key, other=None):
        self.results, self.key, self.other = results, key, other
        self.figure = FIGURES[key]
        self.other_key = self.figure.beside_figure or key

    @property
    def is_measured(self):
        if self.other is None:
            return self.results.has(self.key)
        return bool(self.figure.beside and self.results.has(self.key) and
                    self.results.rounds_of(self.other_key, self.other))

    @property
    def head(self):
        figure = self.figure
        if self.other is None:
            return f"{figure.column}, {figure.unit}" if figure.column else figure.unit
        if figure.beside == "ratio":
            return f"of {self.other}"
        return f"above {self.other}" + (", idle" if self.other_key != self.key else "")

    def cell(self, name):
        if self.other is None:
            return cell(self.results.spread(self.key, name), self.figure.digits)
        if self.figure.beside == "ratio":
            return cell(self.results.ratio(self.key, name, self.other), 3)
        return cell(self.results.difference(self.key, name, self.other, self.other_key),
                    self.figure.digits)


def case_table(results, case, other):
    columns = [column for key in CASES[case].figures
               for column in (Column(results, key), Column(results, key, other))
               if column.is_measured]
    rows = []
    for name in results.names():
        failures = results.failures.get(case, {}).get(name, [])
        if any(results.spread(key, name) for key in CASES[case].figures):
            failed = f" ({len(failures)}× failed)" if failures else ""
            rows.append([name + failed, *(column.cell(name) for column in columns)])
        elif failures:
            rows.append([name, f"failed: {failures[-1]}".replace("|", "/"),
                         *[""] * (len(columns) - 1)])
    return table(["", *(column.head for column in columns or [""])], rows)


def shown_cases(results):
    return [name for name in results.cases
            if name in results.failures or any(map(results.has, CASES[name].figures))]


def wanted_table(results, all_of_it=True):
    """Nothing where nothing of it was measured; else also what was not, if `all_of_it`."""
    rows = []
    for goal in WANTED:
        measured = goal.measure(results)
        if measured is None:
            if all_of_it:
                rows.append([goal.figure, goal.wanted_text(), "not measured"])
            continue
        verdict = "met" if goal.is_met(measured) else "missed"
        rows.append([goal.figure, goal.wanted_text(), f"{goal.show(measured)}, {verdict}"])
    return table(["figure", "wanted", "measured"], rows) if rows else ""


def failures_list(results):
    lines = []
    for case, by_name in results.failures.items():
        for name, reasons in by_name.items():
            lines.append(f"- {name}, {case}: failed {len(reasons)}×: {reasons[-1]}")
    return "\n".join(lines)


def tables(results, other, pictures=None):
    """`pictures` are the files of the charts, by figure, as links have them."""
    parts = []
    for name in shown_cases(results):
        case = CASES[name]
        parts.append(f"### {case.title}\n\n{case.about[0].upper()}{case.about[1:]}.\n")
        for key in case.figures:
            if key in (pictures or {}):
                parts.append(f"![{chart_title(key)}]({pictures[key]})\n")
        parts.append(case_table(results, name, other) + "\n")
    failures = failures_list(results)
    if failures:
        parts.append("### Failed\n\n" + failures + "\n")
    return "\n".join(parts).rstrip("\n")


def chart_title(key):
    case = next(case for case in CASES.values() if key in case.figures)
    column = FIGURES[key].column
    return f"{case.title}: {column}" if column else case.title
