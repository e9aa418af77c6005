"""What Prometheus and Grafana are told to ask for is there to be had."""

import json
import re
from pathlib import Path

from manifests import CLUSTER, built, load, pods_of

from raycsr.distributed.sampling.prometheus import COUNTERS, GAUGES

DASHBOARD = CLUSTER / "extras" / "monitoring" / "grafana.json"


def test_the_dashboard_asks_for_metrics_that_there_are():
    asked = set(re.findall(r"\b(ray_\w+)\b", DASHBOARD.read_text()))
    own = {name for name in asked if name.startswith("ray_raycsr_")}
    # Ray 2.60 puts `ray_` before a metric's name, and `_total` behind that of a Counter
    assert own == {f"ray_{name}_total" for name in COUNTERS} | {f"ray_{name}" for name in GAUGES}
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
