"""The rows' results as Markdown that is also readable as it is."""
import statistics

import docs
import report
from links import link_text
from shares import TcpRow

SHOWN_WITHOUT_A_GOAL = "shown"
BEGIN = "<!-- Made by bench/bonding --write-docs: from here -->"
END = "<!-- Made by bench/bonding --write-docs: to here -->"


def medians(results, row):
    return {figure: statistics.median(by_row[row.name].values())
            for figure, by_row in results.samples.items() if by_row.get(row.name)}


def measured(measure, found):
    """Nothing where the run lacks what it takes."""
    try:
        return measure(found)
    except (KeyError, ZeroDivisionError):
        return None


def number(value, digits):
    return "–" if value is None else report.number(value, digits)


def verdict(goals, found):
    """Of all of a row's goals together."""
    values = [(goal, measured(goal.measure, found)) for goal in goals]
    verdicts = [goal.is_met(value) for goal, value in values if value is not None]
    if False in verdicts:
        return "missed"
    if len(verdicts) < len(goals):
        return "not measured"
    return "met" if True in verdicts else SHOWN_WITHOUT_A_GOAL


def tcp_table(results, rows):
    lines = []
    for row in rows:
        found = medians(results, row)
        clean, plain = (measured(lambda found, kind=kind: row.sum_of(kind, found), found)
                        for kind in ("clean", "plain"))
        lines.append([
            row.name, " + ".join(map(link_text, row.links)),
            number(found.get("braid"), 1), number(clean, 1),
            number(measured(row.share, found), 3), row.goals[0].wanted_text(),
            number(found.get("mptcp"), 1), number(plain, 1),
            number(measured(row.mptcp_share, found), 3), verdict(row.goals, found)])
    return report.table(["row", "links", "braid, Mbit/s", "clean", "share", "wanted",
                         "MPTCP, Mbit/s", "its links", "share", ""], lines)


def goals_table(results, rows):
    lines = []
    for row in rows:
        found = medians(results, row)
        for goal in row.goals:
            value = measured(goal.measure, found)
            shown = "not measured" if value is None else goal.show(value)
            lines.append([row.name, goal.text, goal.wanted_text(), shown, verdict([goal], found)])
    return report.table(["row", "figure", "wanted", "measured", ""], lines)


def tables(results, rows):
    parts = []
    shares = [row for row in rows if isinstance(row, TcpRow)]
    others = [row for row in rows if not isinstance(row, TcpRow)]
    if shares:
        parts.append(tcp_table(results, shares))
    if others:
        parts.append(goals_table(results, others))
    failures = report.failures_list(results)
    if failures:
        parts.append("Failed:\n\n" + failures)
    return "\n\n".join(parts)


def rounds_text(results):
    """Some rows may have been measured more often than others."""
    counts = {max(len(by_row.get(name, ())) for by_row in results.samples.values())
              for name in results.cases}
    return " to ".join(map(str, sorted({min(counts), max(counts)})))


def write_docs(results, rows, path):
    """Rewrites the file's part."""
    about = results.about
    made = (f"{about['date']}, {about['cpus']} CPUs, Linux {about['kernel']}, {about['version']}. "
            f"Rounds: {rounds_text(results)}, of {about['seconds']} s after {about['warm_up']} s of "
            f"warm-up.\n\n{tables(results, rows)}")
    with open(path, encoding="utf-8") as file:
        text = docs.replace_generated(file.read(), made, path, BEGIN, END)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
