"""Metrics of the driver of runs, for Prometheus: what is left of the run in progress, and that it is driven."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType

import ray
from ray.util.metrics import Gauge

GAUGES = {
    "raycsr_running": "1 while the run is sampled, 0 once its driver has ended in order, and nothing once it died",
    "raycsr_images_wanted": "images that the command wants of the run",
    "raycsr_images_left": "of them those that are still to be sampled",
    "raycsr_bare_samples_per_second": "noisy copies a second of the bare networks, on one actor, as timed before",
}
_BEAT_SECONDS = 10.0  # Ray forgets a gauge after half a minute of silence


@dataclass
class Sampled:
    """What there is to show of a run.

    Attributes:
        run_id: Id of the run.
        wanted: Number of images that the command wants of it.
        left: Number of those that are still to be sampled.
        bare: Noisy copies a second of the bare networks, all of them, on one actor.
    """

    run_id: str
    wanted: int
    left: int
    bare: float


class DriverMetrics:
    """Shows the runs of a pool, as a context manager: each from when it is the first that is not done, until the end.

    Runs are sampled one after the other, so one that waits for its turn shows nothing: it is not stalled. Where this
    process is not connected to Ray, nothing is shown at all.
    """

    def __init__(self, runs: Sequence[Sampled]) -> None:
        """Takes the runs, in their order; `left` of each may change meanwhile."""
        self._runs = runs
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True, name="metrics")

    def __enter__(self) -> "DriverMetrics":
        """Begins to show them."""
        if ray.is_initialized():
            self._gauges = {name: Gauge(name, what, tag_keys=("run",)) for name, what in GAUGES.items()}
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Shows that they have ended in order: done, failed or stopped, and not dead."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
            for run in self._shown():
                self._gauges["raycsr_running"].set(0, tags={"run": run.run_id})

    def _shown(self) -> list[Sampled]:
        """The runs that are done, and the first that is not."""
        unfinished = [i for i, run in enumerate(self._runs) if run.left]
        return list(self._runs[: unfinished[0] + 1] if unfinished else self._runs)

    def _beat(self) -> None:
        while not self._stop.is_set():
            for run in self._shown():
                values = (int(run.left > 0), run.wanted, run.left, run.bare)
                for gauge, value in zip(self._gauges.values(), values, strict=True):
                    gauge.set(value, tags={"run": run.run_id})
            self._stop.wait(_BEAT_SECONDS)
