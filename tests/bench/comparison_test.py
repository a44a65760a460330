"""What bench/compare makes of its samples: ratios, tables, charts, a part of the docs."""
import os
import sys
import tempfile
import unittest
import xml.dom.minidom

sys.dont_write_bytecode = True
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path[:0] = [os.path.join(ROOT, "bench", "comparison"), os.path.join(ROOT, "tests", "e2e")]

import charts  # noqa: E402
import docs  # noqa: E402
import report  # noqa: E402
import wanted  # noqa: E402
from cases import CASES  # noqa: E402
from results import Results  # noqa: E402

ABOUT = {"date": "2026-01-02", "cpus": 2, "cpu": "a CPU", "kernel": "6.1", "rounds": 3,
         "seconds": 1}
KINDS = {"no tunnel": "link", "aes-256-gcm": "braid", "slow & steady": "peer", "worse": "peer"}


def results_of(samples, cases):
    results = Results(ABOUT, [{"name": name, "kind": kind, "version": "1"}
                              for name, kind in KINDS.items()], cases)
    for figure, by_name in samples.items():
        for name, values in by_name.items():
            for number, value in enumerate(values):
                if value is not None:
                    results.add(name, str(number), {figure: value})
    return results


def drifting():
    """The machine is slower from round to round; who lacks a round is compared in the others."""
    return results_of({
        "tcp_up": {"no tunnel": [20, 10, 5], "aes-256-gcm": [10, 6, 2],
                   "slow & steady": [1, None, 1]},
        "tcp_up_cpu": {"aes-256-gcm": [1, 1, 1], "slow & steady": [4, 4, 4], "worse": [9, 9, 9]},
        "ping_idle": {"no tunnel": [0.05, 0.06, 0.07], "aes-256-gcm": [0.25, 0.16, 0.37]},
        "ping_loaded": {"no tunnel": [0.1, 0.1, 0.1], "aes-256-gcm": [1.05, 2.06, 3.07]},
    }, ["tcp_up", "ping_idle", "ping_loaded"])


class Comparison(unittest.TestCase):
    def test_ratios_are_of_the_same_round(self):
        results = drifting()
        ratio = results.ratio("tcp_up", "aes-256-gcm", "no tunnel")
        self.assertEqual((ratio.median, ratio.least, ratio.most), (0.5, 0.4, 0.6))
        ratio = results.ratio("tcp_up", "slow & steady", "no tunnel")
        self.assertEqual((ratio.least, ratio.most), (0.05, 0.2))
        self.assertIsNone(results.ratio("tcp_up", "worse", "no tunnel"))

    def test_differences_from_another_figure(self):
        above = drifting().difference("ping_loaded", "aes-256-gcm", "no tunnel", "ping_idle")
        self.assertAlmostEqual(above.median, 2.0)

    def test_what_is_wanted(self):
        met = {goal.figure: goal.is_met(goal.measure(drifting())) for goal in wanted.WANTED
               if goal.measure(drifting()) is not None}
        self.assertEqual(met, {
            "one TCP flow, AES-256-GCM, of no tunnel": False,  # 0.5
            "ping, idle, above no tunnel": False,  # 0.2 ms
            "ping under a saturating TCP flow, above the idle one without tunnel": True,
            # of the better one of both peers
            "CPU seconds per gigabyte, both ends together, of the best installed peer's": True,
        })
        self.assertIn("not measured", report.wanted_table(drifting()))
        self.assertNotIn("not measured", report.wanted_table(drifting(), all_of_it=False))

    def test_tables(self):
        lines = report.case_table(drifting(), "tcp_up", "no tunnel").splitlines()
        self.assertEqual([cell.strip() for cell in lines[0].split("|")[1:-1]],
                         ["", "Gbit/s", "of no tunnel", "daemons' CPU, s/GB"])
        self.assertIn("6.00 (2.00–10.00) | 0.500 (0.400–0.600)", lines[3])
        self.assertEqual(len({len(line) for line in lines}), 1)

    def test_failures_are_told(self):
        results = drifting()
        results.add_failure("ping_idle", "worse", "nobody | answers")
        results.add_failure("ping_idle", "aes-256-gcm", "once")
        text = report.case_table(results, "ping_idle", "no tunnel")
        self.assertIn("failed: nobody / answers", text)
        self.assertIn("aes-256-gcm (1× failed)", text)
        self.assertEqual({line.count("|") for line in text.splitlines()}, {4})
        self.assertIn("- worse, ping_idle: failed 1×: nobody | answers",
                      report.tables(results, "no tunnel"))

    def test_kept_results_are_the_same(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "results.json")
            drifting().save(path)
            self.assertEqual(vars(Results.load(path)), vars(drifting()))

    def test_charts_are_well_formed(self):
        with tempfile.TemporaryDirectory() as folder:
            names = charts.write_charts(drifting(), folder)
            self.assertEqual(sorted(os.listdir(folder)), sorted(names.values()))
            self.assertEqual(set(names), {"tcp_up", "tcp_up_cpu", "ping_idle", "ping_loaded"})
            for name in names.values():
                svg = xml.dom.minidom.parse(os.path.join(folder, name))
                widths = [float(bar.getAttribute("width"))
                          for bar in svg.getElementsByTagName("rect")]
                self.assertTrue(widths and all(width > 0 for width in widths))

    def test_docs_keep_what_is_written_by_hand(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "benchmarks.md")
            with open(path, "w", encoding="utf-8") as file:
                file.write(f"by hand\n{docs.BEGIN}\nold\n{docs.END}\nalso by hand\n")
            for _ in range(2):
                docs.write(drifting(), "no tunnel", path)
                with open(path, encoding="utf-8") as file:
                    text = file.read()
                self.assertTrue(text.startswith(f"by hand\n{docs.BEGIN}\n\n## Wanted and measured"))
                self.assertTrue(text.endswith(f"\n\n{docs.END}\nalso by hand\n"))
                self.assertNotIn("old", text)
                self.assertIn("](benchmarks/tcp_up.svg)", text)
                self.assertTrue(os.path.isfile(os.path.join(folder, "benchmarks", "tcp_up.svg")))

    def test_docs_without_the_place_for_it_are_left_alone(self):
        for text in ("nothing\n", f"{docs.END}\n{docs.BEGIN}\n"):
            with self.assertRaisesRegex(ValueError, "x.md: lacks"):
                docs.replace_generated(text, "made", "x.md")

    def test_the_project_s_docs_have_the_place_for_it(self):
        path = os.path.join(ROOT, "docs", "benchmarks.md")
        with open(path, encoding="utf-8") as file:
            text = file.read()
        self.assertIn("## Micro benchmarks", docs.replace_generated(text, "made", path))

    def test_every_figure_has_a_name_of_its_own(self):
        keys = [key for case in CASES.values() for key in case.figures]
        self.assertEqual(len(keys), len(set(keys)))
        for case in CASES.values():
            self.assertLessEqual(set(case.charted), set(case.figures))
            self.assertLessEqual(set(case.needs), set(CASES))


if __name__ == "__main__":
    unittest.main()
