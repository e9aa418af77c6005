"""Whether images are still those that were sampled: they are read again, and their pixels compared."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
import pyarrow as pa
import ray

from raycsr.data.decode import Decode
from raycsr.data.sources import Source
from raycsr.distributed.cluster import user_errors_of_workers
from raycsr.distributed.sampling.remaining import Remaining
from raycsr.models.spec import Preprocessing
from raycsr.progress import Progress

_BLOCK = 64  # images read at once


def replaced(source: Source, preprocessing: Preprocessing, sampled: pd.DataFrame) -> list[str]:
    """The images whose pixels are no longer those that votes were drawn from.

    A copy of the data has other times than the data, and on S3 other etags, and is the same data all the same: so what
    looks changed is read again, few images in this process, many in tasks on Ray.

    Args:
        source: Source of the images.
        preprocessing: Preprocessing of the base classifier; digests are of decoded pixels.
        sampled: Columns image_id and image_sha (`Run.sampled_pixels`); an image of several digests matches none of
            them.

    Returns:
        Their ids; an image that cannot be read any more is among them.
    """
    decode = Decode(source, preprocessing)
    digests = sampled.groupby("image_id", sort=False)["image_sha"].agg(list)
    ids, what = digests.index.to_numpy(object), f"{len(digests):,} images that were copied or touched since"
    print(f"comparing {what} they were sampled with what was sampled", flush=True)
    other: list[str] = []
    with user_errors_of_workers(), Progress(len(ids), "compare", "images") as progress:
        for block in _digests(decode, [ids[start : start + _BLOCK] for start in range(0, len(ids), _BLOCK)]):
            pairs = zip(block["image_id"], block["image_sha"], strict=True)
            other += [image_id for image_id, now in pairs if digests[image_id] != [now]]
            progress.update(len(block["image_id"]))
    return other


def with_sampled_pixels(remaining: Remaining, to_sample: pd.DataFrame, rules: list[str]) -> pd.DataFrame:
    """Adds what pixels the votes were drawn from that an image has under other rules, so that it gets none from others.

    Args:
        remaining: What the run of the images has.
        to_sample: Columns image_id and rules (with a space between), as `Remaining.to_sample` returns them.
        rules: Ids of all wanted rules; an image that lacks them all has no votes.

    Returns:
        The rows with `sampled`: the digest; "" of an image without votes.
    """
    some = to_sample["image_id"][to_sample["rules"] != " ".join(rules)].drop_duplicates()
    known = remaining.sampled_pixels(some).drop_duplicates("image_id")
    pixels = dict(zip(known["image_id"], known["image_sha"], strict=True))
    return to_sample.assign(sampled=np.array([pixels.get(one, "") for one in to_sample["image_id"]], object))


def _digests(decode: Decode, blocks: list[np.ndarray]) -> Iterator[dict[str, np.ndarray]]:
    """Blocks of ids -> image_id and image_sha, in any order."""

    def digests(block: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        decoded = decode(block)
        return {name: decoded[name] for name in ("image_id", "image_sha")}  # the pixels stay where they are

    if len(blocks) == 1 or not ray.is_initialized():  # a job that samples without Ray reads without it, too
        yield from (digests({"image_id": ids}) for ids in blocks)
        return
    tables = [pa.table({"image_id": pa.array(ids, pa.string())}) for ids in blocks]
    yield from ray.data.from_arrow(tables).map_batches(digests, batch_size=None).iter_batches(batch_size=None)
