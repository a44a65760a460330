"""Bar charts as SVG: one figure, a bar for each contender, with its spread as a line."""
import os
from html import escape

from cases import FIGURES, charted
from report import chart_title, number, shown_cases

WIDTH = 760
LABEL_WIDTH = 210  # left of the bars
VALUE_WIDTH = 100  # right of the longest
ROW_HEIGHT = 24
BAR_HEIGHT = 14
TOP = 48

# Colours that keep their contrast on white and on black, by the contender's kind.
STYLE = """
text { font: 12px system-ui, sans-serif; fill: #24292f; }
.title { font-size: 14px; font-weight: 600; }
.faint { fill: #57606a; }
.braid { fill: #0969da; } .peer { fill: #bf5b04; } .link { fill: #8c959f; }
.spread { stroke: #24292f; stroke-width: 1.5; }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3; } .faint { fill: #9198a1; }
  .braid { fill: #4493f8; } .peer { fill: #e0823d; } .link { fill: #7d8590; }
  .spread { stroke: #e6edf3; }
}
""".strip()


def chart(results, key):
    """The SVG, or nothing where no contender has the figure."""
    figure = FIGURES[key]
    title = escape(chart_title(key))
    spreads = [(each, results.spread(key, each["name"])) for each in results.contenders]
    spreads = [(each, spread) for each, spread in spreads if spread is not None]
    if not spreads:
        return None
    longest = max(spread.most for _, spread in spreads) or 1
    scale = (WIDTH - LABEL_WIDTH - VALUE_WIDTH) / longest
    height = TOP + ROW_HEIGHT * len(spreads) + 8
    better = "more" if figure.more_is_better else "less"
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'width="{WIDTH}" height="{height}" role="img">',
        f"<title>{title}</title>", f"<style>{STYLE}</style>",
        f'<text class="title" x="0" y="16">{title}</text>',
        f'<text class="faint" x="0" y="34">{escape(figure.unit)}, {better} is better; '
        "medians, the lines are least and most</text>"]
    for row, (each, spread) in enumerate(spreads):
        lines += _bar(each, spread, TOP + ROW_HEIGHT * row, scale, figure.digits)
    return "\n".join([*lines, "</svg>", ""])


def _bar(contender, spread, top, scale, digits):
    middle = top + BAR_HEIGHT / 2
    x = [LABEL_WIDTH + at * scale for at in (spread.median, spread.least, spread.most)]
    return [
        f'<text x="{LABEL_WIDTH - 8}" y="{middle + 4:g}" text-anchor="end">'
        f'{escape(contender["name"])}</text>',
        f'<rect class="{contender["kind"]}" x="{LABEL_WIDTH}" y="{top}" '
        f'width="{x[0] - LABEL_WIDTH:.1f}" height="{BAR_HEIGHT}" rx="2"/>',
        f'<line class="spread" x1="{x[1]:.1f}" x2="{x[2]:.1f}" y1="{middle:g}" y2="{middle:g}"/>',
        f'<text x="{x[2] + 8:.1f}" y="{middle + 4:g}">{number(spread.median, digits)}</text>']


def write_charts(results, folder):
    """One file for each figure; returns their names by figure."""
    os.makedirs(folder, exist_ok=True)
    names = {}
    for key in [key for case in shown_cases(results) for key in charted(case)]:
        svg = chart(results, key)
        if svg is None:
            continue
        names[key] = key + ".svg"
        with open(os.path.join(folder, names[key]), "w", encoding="utf-8") as file:
            file.write(svg)
    return names
