"""The generated part of docs/benchmarks.md."""
import os
import shutil

import charts
import report

BEGIN = "<!-- Made by bench/compare --write-docs: from here -->"
END = "<!-- Made by bench/compare --write-docs: to here -->"


def replace_generated(text, made, path, begin=BEGIN, end=END):
    """The text with `made` between its markers."""
    before, found_begin, rest = text.partition(begin)
    _, found_end, after = rest.partition(end)
    if not found_begin or not found_end:
        raise ValueError(f"{path}: lacks the lines {begin} and {end}, in this order")
    return f"{before}{begin}\n\n{made}\n\n{end}{after}"


def generated(results, other, pictures):
    about = results.about
    versions = {each["version"]: None for each in results.contenders if each["version"]}
    return "\n".join([
        "## Wanted and measured", "", report.wanted_table(results), "",
        "## Side by side", "",
        f"{about['date']}, {about['cpus']} CPUs ({about['cpu']}), Linux {about['kernel']}. "
        f"Rounds: {about['rounds']}, of {about['seconds']} s for each case and contender.",
        f"Versions: {'; '.join(versions)}.", "",
        report.tables(results, other, pictures)])


def write(results, other, path):
    """Rewrites the file's part, and its pictures in the folder that is called as it."""
    with open(path, encoding="utf-8") as file:
        text = file.read()
    replace_generated(text, "", path)  # fails before anything is changed
    folder = os.path.splitext(path)[0]
    shutil.rmtree(folder, ignore_errors=True)
    name = os.path.basename(folder)
    pictures = {key: f"{name}/{file}"
                for key, file in charts.write_charts(results, folder).items()}
    with open(path, "w", encoding="utf-8") as file:
        file.write(replace_generated(text, generated(results, other, pictures), path))
