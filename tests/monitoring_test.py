#!/usr/bin/python3
"""What etc/ has for Prometheus and Grafana is what those take: promtool reads the alerts, finds
each fire when it should, and reads each expression of the dashboard."""
import json
import os
import subprocess
import tempfile
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
DASHBOARD = os.path.join(ROOT, "etc/grafana/braid.json")


def promtool(*arguments):
    done = subprocess.run(["promtool", *arguments], cwd=ROOT, text=True, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, check=False, timeout=60)
    return done.returncode, done.stdout


def expressions(part):
    if isinstance(part, dict):
        if "expr" in part:
            yield part["expr"]
        part = list(part.values())
    if isinstance(part, list):
        for each in part:
            yield from expressions(each)


class Alerts(unittest.TestCase):
    def test_are_read(self):
        code, said = promtool("check", "rules", "etc/prometheus/alerts.yml")
        self.assertEqual(code, 0, said)

    def test_fire_when_they_should_and_not_else(self):
        code, said = promtool("test", "rules", "tests/alerts_test.yml")
        self.assertEqual(code, 0, said)

    def test_each_has_a_case(self):
        with open(os.path.join(ROOT, "etc/prometheus/alerts.yml"), encoding="utf-8") as file:
            alerts = [line.split()[-1] for line in file if "- alert:" in line]
        with open(os.path.join(ROOT, "tests/alerts_test.yml"), encoding="utf-8") as file:
            cases = file.read().split("alertname: ")
        fired = {case.split()[0].rstrip(",}") for case in cases if "exp_alerts" in case}
        self.assertEqual(set(alerts) - fired, set())
        self.assertGreater(len(alerts), 5)


class Dashboard(unittest.TestCase):
    def test_each_expression_is_read(self):
        with open(DASHBOARD, encoding="utf-8") as file:
            found = list(expressions(json.load(file)))
        self.assertGreater(len(found), 20)
        rules = [{"record": f"expression{n}", "expr": each.replace("$__rate_interval", "5m")}
                 for n, each in enumerate(found)]
        with tempfile.NamedTemporaryFile("w", suffix=".yml") as file:
            json.dump({"groups": [{"name": "dashboard", "rules": rules}]}, file)  # JSON is YAML
            file.flush()
            code, said = promtool("check", "rules", file.name)
        self.assertEqual(code, 0, said)

    def test_no_panel_covers_another(self):
        with open(DASHBOARD, encoding="utf-8") as file:
            panels = json.load(file)["panels"]
        taken = set()
        for panel in panels:
            place = panel["gridPos"]
            cells = {(x, y) for x in range(place["x"], place["x"] + place["w"])
                     for y in range(place["y"], place["y"] + place["h"])}
            self.assertFalse(cells & taken, panel["title"])
            self.assertLessEqual(place["x"] + place["w"], 24, panel["title"])
            taken |= cells


if __name__ == "__main__":
    unittest.main()
