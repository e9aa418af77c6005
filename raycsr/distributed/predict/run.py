"""Answering: what lacks an answer is asked about and committed, block by block, and all of it is summed up."""

import functools
import sys
from collections.abc import Iterable
from itertools import pairwise

import numpy as np
import pandas as pd
import pyarrow as pa
import ray

from raycsr.data.decode import Decode
from raycsr.deployment.images import to_pixels
from raycsr.deployment.rows import answered_rows, as_json
from raycsr.distributed.cluster import user_errors_of_workers
from raycsr.distributed.pool import Probe, alive_actors, probe
from raycsr.distributed.predict.job import Asked, PredictJob
from raycsr.distributed.predict.predictor import Predictor, PredictorSpec
from raycsr.distributed.sampling.blocks import in_this_process, on_actors
from raycsr.errors import first_of, printable
from raycsr.progress import Progress, Speed
from raycsr.results import Ownership
from raycsr.results.outcome import Predicted
from raycsr.results.predictions import PredictionSet, write_table
from raycsr.smoothing.options import CHUNK

_BLOCK_SECONDS = 60.0  # work of an actor that a crash may cost
_BLOCK_IMAGES = 256
_BLOCKS_PER_ACTOR = 4  # at least, so that actors finish together
_SHOWN = 10  # classes that are counted in words
_EXPECTED = 3 * CHUNK  # estimation samples of an image on average, where most are clear


def predict_job(job: PredictJob) -> Predicted:
    """Asks about what lacks an answer, and sums up."""
    arguments, pool = job.asked.arguments, job.asked.arguments.pool
    found = probe(job.asked.base_classifier, job.asked.sampling, pool)
    predictions, images = job.set_of(found), job.listing.images
    with Ownership(predictions.store, f"predictions {predictions.store.location}") as owner:
        missing = predictions.lacking(images, retry_errors=arguments.retry_errors)
        print("\n".join(map(printable, _plan(job, predictions, found, len(missing)))))
        if len(missing):
            with user_errors_of_workers(pool.needs, seconds=pool.patience):
                _stream(job, predictions, found, owner, missing)
    rows = predictions.read(images)
    if arguments.out is not None:
        write_table(rows, arguments.out, job.asked.deployed.class_names or ())
    failed = rows[rows["error"].notna()]
    return Predicted(
        location=predictions.store.location,
        predictions=rows,
        errors=dict(zip(failed["image_id"], failed["error"], strict=True)),
        lines=_summed_up(rows),
    )


def predict_image(asked: Asked, path: str) -> str:
    """One image's answer, in a line of JSON.

    Args:
        asked: Smoothed classifier that is asked.
        path: File of the image, local or s3://, or - for the standard input.

    Raises:
        UserError: it is no image.
    """
    classifier = asked.classifier_here()
    image = sys.stdin.buffer.read() if path == "-" else path  # a file is named in what is said of it
    votes = classifier.draw(to_pixels(image, classifier.preprocessing))
    (row,) = answered_rows(classifier, votes, asked.costs)
    return as_json(row, classifier)


def _plan(job: PredictJob, predictions: PredictionSet, found: Probe, missing: int) -> list[str]:
    asked, deployed, total = job.asked, job.asked.on(found), len(job.listing.images)
    left = f", of which {missing:,} to answer" if missing else ", all answered"
    height, width = asked.base_classifier.preprocessing.input_size
    return [
        f"answers   {predictions.store.location}",
        f"model     {asked.name}, {height} x {width} px, {found.precision} on {found.device}",
        f"images    {total:,}{left}",
        f"rule      {deployed.rule.spec}, answer {deployed.answer.spec}",
        f"sampling  sigma {deployed.sigma:g}, {deployed.n0:,} + at most {deployed.n:,} samples, fresh noise",
        f"claim     {deployed.claim((height, width))}",
        *job.listing.notes,
    ]


def _summed_up(rows: pd.DataFrame) -> list[str]:
    good = rows[rows["error"].isna()]
    if not len(good):
        return []
    counted = first_of([f"{name} {count:,}" for name, count in good["name"].value_counts().items()], _SHOWN)
    samples, abstained = good["n0"] + good["n"], good["answer"].isna().sum()
    return [
        f"answered  {len(good) - abstained:,} of {len(good):,} images{f': {counted}' if counted else ''}",
        f"abstained on {abstained:,}; {samples.mean():,.0f} samples an image, median {samples.median():,.0f}",
    ]


def _stream(job: PredictJob, predictions: PredictionSet, found: Probe, owner: Ownership, missing: pd.DataFrame) -> None:
    """Decodes ahead of the actors, answers on them, and follows; a pool of no actors is this process."""
    asked, pool = job.asked, job.asked.arguments.pool
    decode = Decode(job.source, asked.base_classifier.preprocessing)
    spec = PredictorSpec(predictions.store.location, owner.number, asked.on(found), asked.costs, pool.threads)
    blocks = _blocks(missing, found, asked.deployed.n0, max(pool.actors, 1))
    if not pool.actors:
        here = functools.partial(Predictor, model=lambda: asked.base_classifier, spec=spec)
        _follow(in_this_process(blocks, [decode], here), owner, len(missing))
        return
    model = functools.partial(ray.get, ray.put(asked.base_classifier))
    answered = on_actors(blocks, [decode], pool, Predictor, model=model, spec=spec)
    _follow(answered, owner, len(missing), counts_actors=True)


def _blocks(missing: pd.DataFrame, found: Probe, n0: int, actors: int) -> list[pa.Table]:
    """What an actor answers and commits at once: about a minute of work, and several blocks an actor."""
    seconds = (n0 + _EXPECTED) / found.samples_per_second
    fair = -(-len(missing) // (_BLOCKS_PER_ACTOR * actors))
    size = int(np.clip(min(_BLOCK_SECONDS / seconds, fair), 1, _BLOCK_IMAGES))
    edges = [*range(0, len(missing), size), len(missing)]
    rows = missing[["image_id", "version"]]
    return [pa.Table.from_pandas(rows[start:stop], preserve_index=False) for start, stop in pairwise(edges)]


def _follow(answered: Iterable[pd.DataFrame], owner: Ownership, images: int, *, counts_actors: bool = False) -> None:
    samples = Speed()

    def note() -> str:
        speed, workers = samples.per_second(), f"{alive_actors()} actors alive" if counts_actors else ""
        return ", ".join(filter(None, ["" if speed is None else f"{speed:,.0f} samples/s", workers]))

    with Progress(images, "predict", "images", note) as progress:
        for block in answered:
            owner.check()
            samples.add(int(block["samples"].sum()))
            progress.update(len(block))
