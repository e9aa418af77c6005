"""Merging: runs that were sampled apart become one."""

from raycsr.costs import CostMatrix
from raycsr.distributed.certify_run import certify_run
from raycsr.results import Run, resolve_run, runs_at
from raycsr.results.joining import join_runs
from raycsr.store import Store


def merge(*, run: list[str], into: str) -> str:
    """Adds images, decision rules, votes and attacks to a run that others of the same model, noise and data have.

    It joins runs that were sampled apart, such as half of the images on each of two clusters, or a copy that was
    sampled further. Where two runs have votes of an image, those that were counted alike must agree, and each image
    counts once. The runs that are read are not changed. The same command continues a merge that was interrupted.

    Args:
        run: Runs to read: their folders, s3://bucket/prefix, or unique prefixes of them; a folder of runs stands for
            all in it.
        into: Run that grows, named in the same way; nobody may be sampling it. To keep it as it is, copy it first by
            `raycsr cp`. All its certificate sets, and those of the other runs, are made for all of its votes.

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
        new = (
            f"{joined.images:,} more images listed, {joined.parts:,} new parts of votes, {joined.attacks:,} of attacks"
        )
        print(f"merged {source.location}: {new}")
    for facts in {name.rsplit("-", 1)[-1]: facts for one in (*sources, target) for name, facts in _sets(one)}.values():
        costs = CostMatrix(facts["costs"].distinct, target.manifest()["class_names"])
        certify_run(target, facts["spec"], costs, facts["alpha"], answer=facts["answer"])
    print(target.location)
    return target.location


def _sets(run: Run) -> list[tuple[str, dict]]:
    return list(run.certificate_sets().items())
