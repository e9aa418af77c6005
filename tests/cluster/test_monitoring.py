"""What Prometheus and Grafana are told to ask for is there to be had."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from manifests import CLUSTER, built, load, pods_of

from raycsr.distributed.sampling import driver_metrics
from raycsr.distributed.sampling.prometheus import COUNTERS, GAUGES

DASHBOARD = CLUSTER / "extras" / "monitoring" / "grafana.json"
EXPORTED = {f"ray_{name}_total" for name in COUNTERS} | {f"ray_{name}" for name in (*GAUGES, *driver_metrics.GAUGES)}
RUN = 'run="ab12", ray_io_cluster="raycsr"'


def test_the_dashboard_asks_for_metrics_that_there_are():
    asked = set(re.findall(r"\b(ray_\w+)\b", DASHBOARD.read_text())) - {"ray_io_cluster"}  # a label
    own = {name for name in asked if name.startswith("ray_raycsr_")}
    # Ray 2.60 puts `ray_` before a metric's name, and `_total` behind that of a Counter
    assert own == EXPORTED
    import ray.dashboard.modules.metrics.dashboards as panels

    of_ray = (Path(panels.__file__).parent / "default_dashboard_panels.py").read_text()
    assert asked - own and all(f"{name}{{" in of_ray for name in asked - own)


def test_the_dashboard_takes_any_prometheus_and_its_panels_do_not_overlap():
    whole = json.loads(DASHBOARD.read_text())
    targets = [target for panel in whole["panels"] for target in panel["targets"]]
    variables = {one["name"]: one for one in whole["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource" and variables["datasource"]["query"] == "prometheus"
    assert {one["datasource"]["uid"] for one in [*whole["panels"], *targets, variables["run"]]} == {"${datasource}"}
    cells = [
        (x, y)
        for place in (panel["gridPos"] for panel in whole["panels"])
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(cells) == len(set(cells)) and max(x for x, _ in cells) < 24
    assert len({panel["id"] for panel in whole["panels"]}) == len(whole["panels"])


def test_grafana_gets_the_dashboard_as_it_is(tmp_path):
    of_cluster = built(tmp_path, "eks", None, ["monitoring"])["ConfigMap/raycsr-dashboard"]
    assert of_cluster["metadata"]["labels"] == {"grafana_dashboard": "1"}
    assert json.loads(of_cluster["data"]["raycsr.json"]) == json.loads(DASHBOARD.read_text())


def test_prometheus_finds_the_ports_and_the_pods():
    monitor, spec = load("extras/monitoring/podmonitor.yaml")["spec"], load("base/raycluster.yaml")["spec"]
    pods = pods_of(spec)
    ports = {port["name"] for pod in pods for port in pod["spec"]["containers"][0]["ports"]}
    assert {endpoint["port"] for endpoint in monitor["podMetricsEndpoints"]} == {x for x in ports if "metrics" in x}
    for pod in pods:
        assert monitor["selector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()


# alerts


def rules():
    (group,) = load("extras/monitoring/rules.yaml")["spec"]["groups"]
    return group["rules"]


def promtool(folder, groups, tests=None):
    """Has Prometheus' own tool check rules, or run tests of them."""
    if shutil.which("promtool") is None:
        pytest.skip("no promtool, which comes with Prometheus")
    (folder / "rules.yaml").write_text(yaml.safe_dump({"groups": groups}))
    words = ["check", "rules", "rules.yaml"]
    if tests is not None:
        (folder / "tests.yaml").write_text(yaml.safe_dump({"rule_files": ["rules.yaml"], "tests": tests}))
        words = ["test", "rules", "tests.yaml"]
    done = subprocess.run(["promtool", *words], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_alerts_ask_for_metrics_that_there_are():
    asked = {name for rule in rules() for name in re.findall(r"\b(ray_raycsr_\w+)\b", rule["expr"])}
    assert asked and asked <= EXPORTED


def test_prometheus_understands_each_question_of_the_dashboard(tmp_path):
    panels = json.loads(DASHBOARD.read_text())["panels"]
    asked = [target["expr"] for panel in panels for target in panel["targets"]]
    filled = [one.replace("$__range", "1h").replace("$run", ".*").replace("$cluster", ".*") for one in asked]
    records = [{"record": f"panel:{i}", "expr": expr} for i, expr in enumerate(filled)]
    promtool(tmp_path, [{"name": "dashboard", "rules": records}])


def said(alert, at, fires):
    """What a test of promtool expects of an alert at a time."""
    labels = {
        "run": "ab12",
        "ray_io_cluster": "raycsr",
        "severity": next(r for r in rules() if r["alert"] == alert)["labels"]["severity"],
    }
    return {"alertname": alert, "eval_time": at, "exp_alerts": [{"exp_labels": labels}] if fires else []}


def series(name, values, more=""):
    return {"series": f"ray_raycsr_{name}{{{RUN}{more}}}", "values": values}


NONE, GONE, ERRORED = "RaycsrNoImageForTenMinutes", "RaycsrDriverGone", "RaycsrErroredImages"
CASES = {
    "a run that goes on": (
        [series("running", "1x120"), series("images_left", "900-1x120"), series("images_total", "0+1x120")],
        [(NONE, "25m", False), (GONE, "25m", False), (ERRORED, "25m", False)],
    ),
    "one without an image": (
        [series("running", "1x120"), series("images_left", "900x120")],
        [(NONE, "9m", False), (NONE, "11m", True), (GONE, "25m", False)],
    ),
    "one that stalls after five minutes": (
        [series("running", "1x120"), series("images_left", "900-1x20 880x100")],
        [(NONE, "12m", False), (NONE, "16m", True)],
    ),
    "one that is done": (
        [series("running", "1x20 0x2 stale"), series("images_left", "20-1x20 0x2 stale")],
        [(GONE, "7m", False), (GONE, "12m", False), (NONE, "25m", False)],
    ),
    "a driver that died": (
        [series("running", "1x20 stale"), series("images_left", "900-1x20 stale")],
        [(GONE, "6m", False), (GONE, "8m", True), (NONE, "25m", False)],
    ),
    "a driver that died, and another that went on to the end": (
        [
            series("running", "1x20 stale", ', WorkerId="1"'),
            series("running", "_x40 1x20 0x2 stale", ', WorkerId="2"'),
        ],
        [(GONE, "8m", True), (GONE, "12m", False), (GONE, "18m", False), (GONE, "25m", False)],
    ),
    "images of which two in a hundred fail": (
        [series("images_total", "0+10x120"), series("errored_images_total", "0+0.2x120")],
        [(ERRORED, "2m", False), (ERRORED, "25m", True)],
    ),
    "images of which one in a thousand fails": (
        [series("images_total", "0+10x120"), series("errored_images_total", "0+0.01x120")],
        [(ERRORED, "25m", False)],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_somebody_is_told_of_what_goes_wrong_and_of_nothing_else(case, tmp_path):
    inputs, wanted = CASES[case]
    silent = [{key: one for key, one in rule.items() if key != "annotations"} for rule in rules()]
    test = {"interval": "15s", "input_series": inputs, "alert_rule_test": [said(*one) for one in wanted]}
    promtool(tmp_path, [{"name": "raycsr", "rules": silent}], [test])


def test_what_is_said_is_a_template_that_prometheus_understands(tmp_path):
    promtool(tmp_path, load("extras/monitoring/rules.yaml")["spec"]["groups"])
