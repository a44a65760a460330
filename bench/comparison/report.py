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


def spread_cells(spread, digits):
    if spread is None:
        return ["–", ""]
    return [number(spread.median, digits),
            f"{number(spread.least, digits)}–{number(spread.most, digits)}"]


def beside(results, key, contender, other):
    """The spread of the figure beside another contender's, and its digits."""
    figure = FIGURES[key]
    if figure.beside == "ratio":
        return results.ratio(key, contender, other), 3
    return results.difference(key, contender, other, figure.beside_figure), figure.digits


def figure_table(results, key, other):
    figure = FIGURES[key]
    case = next(name for name, case in CASES.items() if key in case.figures)
    is_beside = figure.beside and results.has(figure.beside_figure or key) and \
        results.rounds_of(figure.beside_figure or key, other)
    head = ["", figure.unit, "least–most"]
    if is_beside:
        what = figure.beside_figure and FIGURES[figure.beside_figure].title.lower() + ", "
        head += [f"of {other}" if figure.beside == "ratio" else f"above {what}{other}",
                 "least–most"]
    rows = []
    for name in results.names():
        failures = results.failures.get(case, {}).get(name, [])
        spread = results.spread(key, name)
        if spread is None and not failures:
            continue
        cells = spread_cells(spread, figure.digits)
        if spread is None:
            cells[0] = f"failed: {failures[-1]}".replace("|", "/")
        elif failures:
            cells[0] += f" ({len(failures)}× failed)"
        if is_beside:
            cells += spread_cells(*beside(results, key, name, other))
        rows.append([name, *cells])
    return table(head, rows)


def shown_figures(results):
    return [key for name in results.cases for key in CASES[name].figures
            if results.has(key) or name in results.failures]


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
    for key in shown_figures(results):
        picture = (pictures or {}).get(key)
        parts.append(f"### {FIGURES[key].title}\n")
        if picture:
            parts.append(f"![{FIGURES[key].title}]({picture})\n")
        parts.append(figure_table(results, key, other) + "\n")
    failures = failures_list(results)
    if failures:
        parts.append("### Failed\n\n" + failures + "\n")
    return "\n".join(parts).rstrip("\n")
