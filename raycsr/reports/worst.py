"""The worst that attacks found: images beside the nearest pictures that are answered by a costly class."""

import io
from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from raycsr.errors import UserError
from raycsr.reports.certified import Certified, id_of
from raycsr.reports.document import Block, Captioned, Gallery, Paragraph
from raycsr.reports.perturbed import Perturbed, magnified
from raycsr.reports.photographs import read_pictures, small_png
from raycsr.results.attacks import AttackSet, attack_sets

EXPLAINED = (
    "The nearest pictures that the smoothed classifier is proven to answer by a costly class, of the few dozen images "
    "whose pictures are kept: the image, what an attack found, and the change by itself, magnified around grey."
)


def nearest_broken(one: Certified, most: int) -> pd.DataFrame:
    """The nearest broken pictures of a set of certificates, each of another image; no rows where none is kept.

    Args:
        one: The set; attacks under its cost matrix, rule and answer count, of all budgets.
        most: Number of pictures at most.
    """
    if one.origin is None:
        return pd.DataFrame()
    found = [
        AttackSet(one.origin.store, name).nearest(most)
        for name, facts in attack_sets(one.origin).items()
        if id_of(facts["rule"], facts["answer"]) == one.rule_id and facts["costs"].digest == one.matrix.digest
    ]
    rows = pd.concat([rows for rows in found if len(rows)] or [pd.DataFrame(columns=["image_id", "distance"])])
    rows = rows[rows["image_id"].isin(one.certificates["image_id"])]
    return rows.sort_values("distance", kind="stable").drop_duplicates("image_id").head(most).reset_index(drop=True)


def worst_found(one: Certified, most: int) -> list[Block]:
    """What stands on the page of the worst pictures of a set; nothing where none is kept.

    Args:
        one: Set of certificates.
        most: Number of pictures at most.
    """
    rows = nearest_broken(one, most)
    if rows.empty or one.origin is None:
        return []
    known = one.certificates.set_index("image_id", drop=False).loc[rows["image_id"]]
    try:
        originals = read_pictures(one.origin, known)
    except UserError as error:
        return [Paragraph(f"The worst pictures of {one.label} cannot be shown beside their images: {error}")]
    names = one.matrix.class_names or [str(y) for y in range(one.matrix.num_classes)]
    blocks: list[Block] = [Paragraph(f"{one.label}. {EXPLAINED}")]
    for row, certified, original in zip(
        rows.to_dict("records"), known["cost_sensitive_radius"], originals, strict=True
    ):
        if isinstance(original, str):
            blocks.append(Paragraph(f"{row['image_id']} cannot be shown: {original}"))
        else:
            title = f"{names[row['label']]} → {names[row['target']]}"
            blocks.append(_beside(original, _pixels(row["picture"]), (row["image_id"], title), certified))
    return blocks


def _pixels(picture: bytes) -> NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(picture)).convert("RGB"))


def _beside(
    original: NDArray[np.uint8], picture: NDArray[np.uint8], titles: Sequence[str], certified: float
) -> Gallery:
    """An image, a picture near it, and the change; all uint8 (H, W, 3)."""
    found = Perturbed(titles[1], picture, picture.astype(np.int64) - original)
    change = magnified(found)
    lines = [*found.lines(), f"certified within {certified:.4g}"]
    return Gallery(
        [
            Captioned(small_png(original), [titles[0]]),
            Captioned(small_png(picture), lines),
            Captioned(small_png(change.pixels), [change.title]),
        ]
    )
