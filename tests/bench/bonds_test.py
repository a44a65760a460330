"""What bench/bonding makes of its samples: shares, gaps, verdicts, a part of the docs."""
import os
import sys
import tempfile
import unittest

sys.dont_write_bytecode = True
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path[:0] = [os.path.join(ROOT, "bench", "bonds"), os.path.join(ROOT, "bench", "comparison"),
                os.path.join(ROOT, "tests", "e2e")]

import docs  # noqa: E402
import fec  # noqa: E402
import silence  # noqa: E402
import summary  # noqa: E402
from results import Results  # noqa: E402
from rows import ROWS  # noqa: E402

ABOUT = {"date": "2026-01-02", "cpus": 2, "kernel": "6.1", "rounds": 3, "seconds": 1, "warm_up": 1,
         "version": "braid 1"}


def results_of(name, **figures):
    results = Results(ABOUT, [{"name": name, "kind": "row", "version": ""}], [name])
    for figure, values in figures.items():
        for number, value in enumerate(values):
            results.add(name, str(number), {figure: value})
    return results


def cells(line):
    return [cell.strip() for cell in line.split("|")[1:-1]]


def last_line(name, **figures):
    return cells(summary.tables(results_of(name, **figures), [ROWS[name]]).splitlines()[-1])


A_BBR = {"braid": [60, 66.5, 70], "clean1": [40, 50, 90], "clean2": [20, 20, 20]}


class Bonds(unittest.TestCase):
    def test_shares_are_of_the_medians(self):
        self.assertEqual(
            last_line("A-bbr", **A_BBR, mptcp=[66], plain1=[48], plain2=[22]),
            ["A-bbr", "50/10/0/256 + 20/30/0/256", "66.5", "70.0", "0.950", "at least 0.950",
             "66.0", "70.0", "0.943", "met"])

    def test_a_share_below_mptcp_s_misses_with_bbr_only(self):
        figures = {**A_BBR, "mptcp": [69], "plain1": [48], "plain2": [22]}
        self.assertEqual(last_line("A-bbr", **figures)[-1], "missed")
        self.assertEqual(last_line("A-cubic", **figures)[-1], "met")

    def test_what_was_not_measured_is_not_met(self):
        self.assertEqual(last_line("A-bbr", **A_BBR)[-4:], ["–", "–", "–", "not measured"])
        self.assertEqual(last_line("A-bbr", braid=[60])[2:5], ["60.0", "–", "–"])

    def test_the_reference_of_the_guard_is_its_first_link(self):
        self.assertEqual(last_line("guard-cubic", braid=[98], clean1=[100])[-1], "met")
        self.assertEqual(last_line("guard-cubic", braid=[97], clean1=[100])[-1], "missed")

    def test_every_row_has_what_its_goals_need(self):
        for row in ROWS.values():
            self.assertTrue(row.parts and row.goals and row.links, row.name)
            self.assertIn("not measured", summary.tables(results_of(row.name), [row]))

    def test_goals_at_most(self):
        text = summary.tables(results_of("silence-stripe", gap_ms=[90, 100, 300], lost=[3],
                                         back_s=[1.25]), [ROWS["silence-stripe"]])
        lines = [cells(line) for line in text.splitlines()[2:]]
        self.assertEqual([line[2:] for line in lines], [
            ["at most 100 ms", "100 ms", "met"], ["–", "3", "shown"],
            ["at most 1.00 s", "1.25 s", "missed"]])

    def test_gaps_count_from_the_fault_to_the_end(self):
        fault = object.__new__(silence.Fault)
        fault.began_at, fault.ended_at = 10, 15
        end = fault.ended_at + silence.AFTER_S
        steady = [each / 10 for each in range(90, 10 * end)]
        self.assertAlmostEqual(fault.longest_gap_ms(steady), 100)
        without = [at for at in steady if not 9.95 < at < 10.35]  # the last one before counts
        self.assertAlmostEqual(fault.longest_gap_ms(without), 500)
        self.assertAlmostEqual(fault.longest_gap_ms([9.5, 12]), 1000 * (end - 12))  # never again
        self.assertAlmostEqual(fault.longest_gap_ms([1, 9.9, *steady]), 100)  # not ahead of it

    def test_overhead_of_fec(self):
        self.assertAlmostEqual(fec.overhead_percent(
            {"fec_bytes_a_datagram": 1500, "no_fec_bytes_a_datagram": 1250}), 20)

    def test_rounds_are_those_that_were_measured(self):
        results = results_of("A-bbr", **A_BBR)
        self.assertEqual(summary.rounds_text(results), "3")
        results.cases.append("single-bbr")
        results.add("single-bbr", "0", {"braid": 1})
        self.assertEqual(summary.rounds_text(results), "1 to 3")

    def test_failures_are_told(self):
        results = results_of("A-bbr")
        results.add_failure("A-bbr", "MPTCP", "has joined 0 of 1 more links")
        self.assertIn("- MPTCP, A-bbr: failed 1×: has joined 0 of 1 more links",
                      summary.tables(results, [ROWS["A-bbr"]]))

    def test_docs_keep_the_rest(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "benchmarks.md")
            with open(path, "w", encoding="utf-8") as file:
                file.write(f"{docs.BEGIN}\nother\n{docs.END}\n{summary.BEGIN}\nold\n"
                           f"{summary.END}\nby hand\n")
            for _ in range(2):
                summary.write_docs(results_of("A-bbr", **A_BBR), [ROWS["A-bbr"]], path)
            with open(path, encoding="utf-8") as file:
                text = file.read()
        self.assertTrue(text.startswith(f"{docs.BEGIN}\nother\n{docs.END}\n{summary.BEGIN}\n\n2026"))
        self.assertTrue(text.endswith(f"\n\n{summary.END}\nby hand\n"))
        self.assertNotIn("old", text)

    def test_the_project_s_docs_have_the_place_for_it(self):
        path = os.path.join(ROOT, "docs", "benchmarks.md")
        with open(path, encoding="utf-8") as file:
            docs.replace_generated(file.read(), "made", path, summary.BEGIN, summary.END)


if __name__ == "__main__":
    unittest.main()
