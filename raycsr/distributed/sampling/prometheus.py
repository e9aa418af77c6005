"""Metrics of the actors that sample, for Prometheus: Ray exports each under `ray_` and its name."""

import math
import threading

from ray.util.metrics import Counter, Gauge

COUNTERS = {
    "raycsr_images": "images sampled",
    "raycsr_errored_images": "images that could not be sampled",
    "raycsr_samples": "noisy copies voted on",
    "raycsr_out_of_memory_halvings": "times the batch was halved because the device's memory was full",
    "raycsr_s3_retries": "times S3 did not answer and was asked again",
}
GAUGES = {
    "raycsr_samples_per_second": "noisy copies a second, over the last image",
    "raycsr_batch_size": "rows of a forward pass",
}


class Metrics:
    """One actor's counters and gauges, each with the run as its tag."""

    def __init__(self, run_id: str) -> None:
        """Registers them with this worker."""
        self._counters = {name: Counter(name, what, tag_keys=("run",)) for name, what in COUNTERS.items()}
        self._gauges = {name: Gauge(name, what, tag_keys=("run",)) for name, what in GAUGES.items()}
        for metric in (*self._counters.values(), *self._gauges.values()):
            metric.set_default_tags({"run": run_id})
        self._batch_size: int | None = None
        self._retries = 0
        self._lock = threading.Lock()  # several threads sample a block each

    def show(self, samples: int, seconds: float, batch_size: int) -> None:
        """Shows the speed of an image that was just sampled; Ray forgets a gauge after half a minute of silence.

        Args:
            samples: Number of samples drawn for the image.
            seconds: Seconds that drawing them took.
            batch_size: Number of rows of a forward pass by now.
        """
        self._gauges["raycsr_samples_per_second"].set(samples / seconds)
        self._gauges["raycsr_batch_size"].set(batch_size)
        with self._lock:
            before, self._batch_size = self._batch_size, batch_size
        if before is not None and batch_size < before:
            self._counters["raycsr_out_of_memory_halvings"].inc(round(math.log2(before / batch_size)))

    def add_block(self, *, images: int, errored: int, samples: int, retries: int) -> None:
        """Adds a block that was committed.

        Args:
            images: Number of images of the block.
            errored: Number of those that could not be sampled.
            samples: Number of samples drawn for the block.
            retries: Number of retries of the store since the actor began.
        """
        with self._lock:
            before, self._retries = self._retries, max(self._retries, retries)
        added = {
            "raycsr_images": images,
            "raycsr_errored_images": errored,
            "raycsr_samples": samples,
            "raycsr_s3_retries": max(0, retries - before),
        }
        for name, value in added.items():
            if value:  # a counter refuses zero
                self._counters[name].inc(value)
