"""HAM10000's metadata as a CSV that raycsr reads: two classes, and two splits, by image as published and by lesion.

    python -m jobs.ham10k --metadata HAM10000_metadata.csv --out DIR/ham10k.csv

The images, <image_id>.jpg, are then looked for beside the CSV; others by `data.image_roots`.
"""

import sys

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold, train_test_split

from raycsr.cli import run_job
from raycsr.errors import UserError

MALIGNANT = ("mel", "bcc")  # as in the code of Xin et al. (ICML 2025), which takes akiec for benign


def table(metadata: pd.DataFrame) -> pd.DataFrame:
    """Returns image_id, lesion_id, label, by_image and by_lesion: a fifth is test, of each label; always the same."""
    absent = {"image_id", "lesion_id", "dx"} - {*metadata.columns}
    if absent:
        raise UserError(f"the metadata have no column {', '.join(sorted(absent))}; give HAM10000_metadata")
    label = np.where(metadata["dx"].isin(MALIGNANT), "malignant", "benign")
    _, by_image = train_test_split(np.arange(len(metadata)), test_size=0.2, random_state=1, stratify=label)
    folds = StratifiedGroupKFold(n_splits=5, shuffle=True, random_state=1)
    _, by_lesion = next(folds.split(metadata, label, metadata["lesion_id"]))
    made = metadata[["image_id", "lesion_id"]].assign(label=label)
    for name, test in (("by_image", by_image), ("by_lesion", by_lesion)):
        made[name] = np.where(np.isin(np.arange(len(metadata)), test), "test", "train")
    return made


def main(*, metadata: str, out: str) -> None:
    """Writes the CSV.

    Args:
        metadata: HAM10000_metadata, a CSV with the columns image_id, lesion_id and dx.
        out: CSV to write.
    """
    table(pd.read_csv(metadata)).to_csv(out, index=False)


if __name__ == "__main__":
    sys.exit(run_job(main))
