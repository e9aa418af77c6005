"""What a user says to have a space searched: the options of `raycsr sweep`."""

from dataclasses import dataclass

from raycsr.data.options import DataOptions
from raycsr.distributed.options import PoolOptions, SearchOptions, Space, TrackingOptions
from raycsr.distributed.training.arguments import TrainConfig
from raycsr.smoothing.options import SamplingOptions


@dataclass(frozen=True, kw_only=True)
class SweepArguments(TrainConfig):
    """The options of `raycsr sweep`: those of a training, from which the trials differ, and those below.

    Attributes:
        space: Search space: dotted option -> {grid: [...]}, {choice: [...]}, {uniform: [low, high]} or
            {log_uniform: [low, high]}. A group of options may be a value: `objective: {grid: [{name: gaussian}]}`.
        results: Folder for the results, local or s3://bucket/prefix.
        experiment: Name of the experiment, which is a folder within the results.
        name: Name of the sweep.
        search: How the space is searched, and with what resources.
        tracking: The experiment trackers to which trials are reported.
        test: Images to evaluate the best classifiers on, with the `sampling` and `pool` below; by default none.
        sampling: The noise and the number of samples of that evaluation; sigma is that of each classifier's training.
        pool: The actors that sample in that evaluation.
        radii: L2 radii of the table of that evaluation, in [0, 1] pixel units.
    """

    space: Space
    results: str
    experiment: str = "default"
    name: str = "sweep"
    sigma: float = 0.25
    search: SearchOptions = SearchOptions()
    tracking: TrackingOptions = TrackingOptions()
    test: DataOptions | None = None
    sampling: SamplingOptions = SamplingOptions()
    pool: PoolOptions = PoolOptions()
    radii: list[float] | None = None
