"""Sampling: images -> votes, on Ray Data; the same command again samples only what is missing."""

from raycsr.distributed.sampling.arguments import SampleArguments
from raycsr.options import takes
from raycsr.results.outcome import Outcome


@takes(SampleArguments)
def sample(asked: SampleArguments) -> list[Outcome]:
    """Counts the votes of a base classifier on noisy copies of images, on a pool of Ray actors.

    The same command continues a run that was interrupted. A run is also continued where more images or more decision
    rules are asked for: each image counts once under each rule.

    Args:
        asked: Options of the verb; a caller gives its fields as keyword arguments.

    Returns:
        The outcome of each run.

    Raises:
        UserError: Something is wrong that can be known before samples are paid for; or a network's logits
            are not finite from the start.
    """
    from raycsr.distributed.sampling.run import sample_all

    return sample_all(asked)
