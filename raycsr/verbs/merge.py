"""Merging: runs that were sampled apart become one."""

import numpy as np

from raycsr.costs import CostMatrix
from raycsr.distributed.certify_run import certify_run
from raycsr.results import Run, resolve_run, runs_at
from raycsr.results.joining import join_runs
from raycsr.store import Store


def merge(*, run: list[str], into: str) -> str:
    """Adds to a run what others of the same model, noise and data have that it lacks: images, rules and votes.

    For runs that were sampled apart, say half of the images on each of two clusters, or a copy that was sampled
    further. Where both have votes of an image, those that were counted alike must agree, and each image counts once.
    The runs that are read stay as they are. The same command goes on with a merge that was interrupted.

    Args:
        run: Runs to read: folders, s3://bucket/prefix, or unique prefixes of them; or folders of runs, for all in them.
        into: The run that grows, named in the same way; nobody may be sampling it. To keep it as it is, `raycsr cp` it
            first. All its sets of certificates, and those of the others, are made for all of its votes.

    Returns:
        The location of the run that grew.

    Raises:
        UserError: where two runs were begun with other options or on other data, or have different votes of an image;
            or a living driver holds the one that is to grow.
    """
    target = Run(Store(resolve_run(into).location))
    sources = [resolve_run(location) for location in runs_at(run)]
    for source in sources:
        joined = join_runs(source, target)
        print(f"merged {source.location}: {joined.images:,} new images, {joined.parts:,} new parts of votes")
    for facts in {name.rsplit("-", 1)[-1]: facts for one in (*sources, target) for name, facts in _sets(one)}.values():
        costs = CostMatrix(np.array(facts["values"]), target.manifest()["class_names"])
        certify_run(target, facts["spec"], costs, facts["alpha"])
    print(target.location)
    return target.location


def _sets(run: Run) -> list[tuple[str, dict]]:
    return list(run.certificate_sets().items())
