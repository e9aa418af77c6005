"""What a driver shows to Prometheus, without a Prometheus: see tests/jobs for actors of a cluster."""

import time
import urllib.request

import pytest
import ray

from raycsr.distributed.sampling import driver_metrics
from raycsr.distributed.sampling.driver_metrics import DriverMetrics, Sampled


@pytest.fixture
def shown(monkeypatch):
    """(Name, run) -> the value that a gauge was last set to."""
    values = {}

    class Recorder:
        def __init__(self, name, description, tag_keys):
            self.name = name
            assert description and tag_keys == ("run",)

        def set(self, value, tags):
            values[self.name.removeprefix("raycsr_"), tags["run"]] = value

    monkeypatch.setattr(driver_metrics, "Gauge", Recorder)
    monkeypatch.setattr(driver_metrics, "_BEAT_SECONDS", 0.01)
    monkeypatch.setattr(driver_metrics.ray, "is_initialized", lambda: True)
    return values


def until(holds, seconds=20):
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_run_is_shown_while_it_lasts_and_ends_in_order(shown):
    run = Sampled("ab12", wanted=50, left=20, bare=700.0)
    with DriverMetrics([run]):
        until(lambda: len(shown) == 4)
        assert shown == {
            ("running", "ab12"): 1,
            ("images_wanted", "ab12"): 50,
            ("images_left", "ab12"): 20,
            ("bare_samples_per_second", "ab12"): 700.0,
        }
        run.left = 3
        until(lambda: shown["images_left", "ab12"] == 3)
    assert shown["running", "ab12"] == 0 and shown["images_left", "ab12"] == 3  # what was not done is not hidden


def test_a_run_that_waits_for_its_turn_is_not_shown_as_one_that_stalls(shown):
    first, second = Sampled("ab12", 50, 20, 1.0), Sampled("cd34", 50, 50, 1.0)
    with DriverMetrics([first, second]):
        until(lambda: len(shown) == 4)
        assert ("running", "cd34") not in shown
        first.left = 0
        until(lambda: shown.get(("running", "cd34")) == 1)
        until(lambda: shown["running", "ab12"] == 0)


def test_it_ends_in_order_when_it_fails(shown):
    with pytest.raises(KeyboardInterrupt), DriverMetrics([Sampled("ab12", 50, 20, 1.0)]):
        until(lambda: len(shown) == 4)
        raise KeyboardInterrupt
    assert shown["running", "ab12"] == 0


def test_without_ray_nothing_is_shown(shown, monkeypatch):
    monkeypatch.setattr(driver_metrics.ray, "is_initialized", lambda: False)
    with DriverMetrics([Sampled("ab12", 50, 20, 1.0)]):
        pass
    assert shown == {}


def test_ray_exports_what_a_driver_shows_and_its_end(cluster):
    (node,) = ray.nodes()
    page = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"

    def exported(name):
        text = urllib.request.urlopen(page, timeout=10).read().decode()
        of_run = [
            line for line in text.splitlines() if line.startswith(f"ray_raycsr_{name}{{") and 'run="ef56"' in line
        ]
        return {float(line.split()[-1]) for line in of_run}

    with DriverMetrics([Sampled("ef56", wanted=50, left=20, bare=700.0)]):
        until(lambda: all(exported(name.removeprefix("raycsr_")) for name in driver_metrics.GAUGES), seconds=90)
        assert exported("images_left") == {20.0} and exported("running") == {1.0}
    until(lambda: exported("running") == {0.0}, seconds=90)
