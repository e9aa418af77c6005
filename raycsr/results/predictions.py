"""Predictions: what a smoothed classifier said of unlabelled images, a set for each way to ask it."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from raycsr.errors import DamagedFile, UserError
from raycsr.results.parts import Parts
from raycsr.results.schema import refuse_other_schema
from raycsr.store import Store

PREDICTIONS = pa.schema(
    [
        ("image_id", pa.string()),
        ("version", pa.string()),  # of its file as it was listed: another is another image
        ("answer", pa.int32()),  # class; null where it abstains
        ("name", pa.string()),  # of that class; null where it abstains
        # of the classes with most votes, descending: estimates
        ("shares", pa.list_(pa.struct([("class", pa.int32()), ("share", pa.float64())]))),
        ("standard_radius", pa.float64()),  # L2, [0, 1] pixel units, as in certificates; at alpha, from these votes
        ("multiclass_radius", pa.float64()),
        ("radius_if", pa.list_(pa.float64())),  # at y: no class of Omega_y within, if y is the true class; null without
        ("n0", pa.int64()),  # selection samples
        ("n", pa.int64()),  # estimation samples: sequential
        ("image_sha", pa.string()),  # sha256 of the decoded pixels
        ("device", pa.string()),
        ("seconds", pa.float64()),  # of sampling
        ("error", pa.string()),  # null, or why nothing is said
    ]
)

_FACTS = "predictions.json"


class PredictionSet:
    """The predictions of one smoothed classifier, under one level, on one source of images.

    Attributes:
        store: Its folder.
    """

    def __init__(self, store: Store) -> None:
        """Opens a set; nothing is read yet."""
        self.store = store
        self._parts = Parts(store.at("parts"), PREDICTIONS)

    @classmethod
    def of(cls, results: str, experiment: str, facts: Mapping[str, Any]) -> "PredictionSet":
        """The set of such facts, which are JSON values, in an experiment: a digest of them names it."""
        digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
        return cls(Store(results).at(f"{experiment}/predictions/{digest[:16]}"))

    def note(self, facts: Mapping[str, Any]) -> None:
        """Writes down what the set is of, where that is not there.

        Raises:
            UserError: it was begun under another schema.
        """
        if self.store.create(_FACTS, json.dumps(facts, indent=1).encode()):
            return
        try:
            noted = json.loads(self.store.read(_FACTS))
        except (ValueError, RecursionError) as error:
            raise DamagedFile(f"{self.store.location}/{_FACTS}", "it is no JSON", "delete it") from error
        if not isinstance(noted, dict):
            raise DamagedFile(f"{self.store.location}/{_FACTS}", "it is no JSON object", "delete it")
        refuse_other_schema(noted, f"{self.store.location}/{_FACTS}")

    def write(self, part: str, predictions: pa.Table) -> None:
        """Commits a part."""
        self._parts.write(part, predictions)

    def one(self, part: str) -> pa.Table | None:
        """A committed part; None where there is none, or it cannot be read."""
        return self._parts.one(part, PREDICTIONS.names) if self._parts.store.exists(part) else None

    def read(self, images: pd.DataFrame) -> pd.DataFrame:
        """The predictions of some images, of a listing's image_id and version, in their order.

        Where an image was asked about several times, as after an error, the first answer by part name stands: which it
        is does not depend on what it says.
        """
        rows = self._parts.read(PREDICTIONS.names).to_pandas()
        rows = rows.sort_values("error", key=lambda errors: errors.notna(), kind="stable")
        return images[["image_id", "version"]].merge(rows.drop_duplicates(["image_id", "version"]), how="inner")

    def lacking(self, images: pd.DataFrame, *, retry_errors: bool) -> pd.DataFrame:
        """Of a listing's images those that have no prediction, or with `retry_errors` none but an error."""
        done = self._parts.read(["image_id", "version", "error"]).to_pandas()
        if retry_errors:
            done = done[done["error"].isna()]
        keys = pd.MultiIndex.from_frame(done[["image_id", "version"]])
        return images[~pd.MultiIndex.from_frame(images[["image_id", "version"]]).isin(keys)]


def write_table(predictions: pd.DataFrame, path: str) -> None:
    """Writes predictions as one table, by the ending of its name: .csv, .jsonl or .parquet; local or s3://.

    Raises:
        UserError: another ending, or the file cannot be written.
    """
    check_table(path)
    rows = predictions.drop(columns="version")
    if path.endswith(".parquet"):
        data = rows.to_parquet(index=False)
        assert data is not None
    elif path.endswith(".jsonl"):
        text = rows.to_json(orient="records", lines=True, force_ascii=False, double_precision=15)
        data = text.encode()
    else:
        flat = rows.assign(shares=rows["shares"].map(_shares), radius_if=rows["radius_if"].map(_radii))
        data = flat.to_csv(index=False).encode()
    Store(path).write("", data)


def _shares(shares: Any) -> str:
    """A list of a table as text; what is missing is empty."""
    return " ".join(f"{one['class']}:{one['share']:.6g}" for one in shares) if np.ndim(shares) else ""


def _radii(radii: Any) -> str:
    """One entry a class, between spaces; nan where it has no costly mistake."""
    return " ".join(f"{radius:.6g}" for radius in radii) if np.ndim(radii) else ""


def check_table(path: str) -> None:
    """Refuses a file whose name does not say what kind of table it is.

    Raises:
        UserError: naming it.
    """
    if not path.endswith((".csv", ".jsonl", ".parquet")):
        raise UserError(f"out is {path!r}; its ending says what is written: .csv, .jsonl or .parquet")
