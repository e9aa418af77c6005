"""Predictions: what a smoothed classifier said of unlabelled images, a set for each way to ask it."""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from raycsr.errors import DamagedFile, UserError
from raycsr.results.locations import find_experiments
from raycsr.results.notes import is_text, read_note
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

FACTS = "predictions.json"
"""The file of a set that says what it is of."""

_KEY = ["image_id", "version"]


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
        if self.store.create(FACTS, json.dumps(facts, indent=1).encode()):
            return
        try:
            noted = json.loads(self.store.read(FACTS))
        except (ValueError, RecursionError) as error:
            raise DamagedFile(f"{self.store.location}/{FACTS}", "it is no JSON", "delete it") from error
        if not isinstance(noted, dict):
            raise DamagedFile(f"{self.store.location}/{FACTS}", "it is no JSON object", "delete it")
        refuse_other_schema(noted, f"{self.store.location}/{FACTS}")

    def write(self, part: str, predictions: pa.Table) -> None:
        """Commits a part."""
        self._parts.write(part, predictions)

    def one(self, part: str) -> pa.Table | None:
        """A committed part; None where there is none, or it cannot be read."""
        return self._parts.one(part, PREDICTIONS.names) if self._parts.store.exists(part) else None

    def facts(self) -> dict[str, Any]:
        """What the set is of, as it was noted.

        Raises:
            DamagedFile: it is not what was written.
            UserError: it is of another schema.
        """
        fields = {
            "model": is_text,
            "sigma": lambda sigma: type(sigma) in (int, float),
            "answer": _has_spec,
            "rule": _has_spec,
        }
        facts = read_note(self.store, FACTS, fields, "delete it")
        refuse_other_schema(facts, f"{self.store.location}/{FACTS}")
        return facts

    def all(self) -> pd.DataFrame:
        """The predictions of all images, each version of an image once, in the order of their ids.

        Where an image was asked about several times, as after an error, the first answer by part name stands: which it
        is does not depend on what it says.
        """
        rows = self._parts.read(PREDICTIONS.names).to_pandas()
        rows = rows.sort_values("error", key=lambda errors: errors.notna(), kind="stable")
        return rows.drop_duplicates(_KEY).sort_values(_KEY, ignore_index=True)

    def read(self, images: pd.DataFrame) -> pd.DataFrame:
        """The predictions of some images, of a listing's image_id and version, in their order."""
        return images[_KEY].merge(self.all(), how="inner")

    def count(self) -> int:
        """How many images something is said of, be it that it abstains; not those with an error."""
        rows = self._parts.read([*_KEY, "error"]).to_pandas()
        return len(rows[rows["error"].isna()].drop_duplicates(_KEY))

    def lacking(self, images: pd.DataFrame, *, retry_errors: bool) -> pd.DataFrame:
        """Of a listing's images those that have no prediction, or with `retry_errors` none but an error."""
        done = self._parts.read([*_KEY, "error"]).to_pandas()
        if retry_errors:
            done = done[done["error"].isna()]
        keys = pd.MultiIndex.from_frame(done[_KEY])
        return images[~pd.MultiIndex.from_frame(images[_KEY]).isin(keys)]


def find_predictions(location: str | os.PathLike[str]) -> list[PredictionSet]:
    """All sets of predictions at or under a location: a set, an experiment, or a results folder; sorted by location."""
    store = Store(location)
    if store.exists(FACTS):
        return [PredictionSet(store)]
    experiments = find_experiments(location)
    sets = [
        experiment.at(f"predictions/{name}") for experiment in experiments for name in experiment.names("predictions")
    ]
    return [PredictionSet(one) for one in sets if one.exists(FACTS)]


def load_predictions(predictions: str | os.PathLike[str]) -> pd.DataFrame:
    """Reads what `raycsr predict` said of images.

    Args:
        predictions: The set's folder, which `raycsr predict` prints last, local or `s3://...`; or a folder of results
            that has no other.

    Returns:
        One row an image, in the order of their ids, with the columns of `raycsr.results.predictions.PREDICTIONS`:
        `answer` and `name` are null where it abstains, `error` says why nothing is said. An image whose file was
        replaced after it was asked about has a row for each `version` of the file.

    Raises:
        UserError: where there is no such set, or several.

    Example:
        >>> load_predictions(folder)  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        raycsr.errors.UserError: no predictions at ...; give the folder that `raycsr predict` printed last
    """
    found = find_predictions(predictions)
    if len(found) == 1:
        found[0].facts()
        return found[0].all()
    where = repr(os.fspath(predictions))
    if not found:
        raise UserError(f"no predictions at {where}; give the folder that `raycsr predict` printed last")
    raise UserError(f"{where} means {len(found)} sets of predictions, the first {found[0].store.location}; name one")


def _has_spec(value: Any) -> bool:
    return isinstance(value, dict) and is_text(value.get("spec"))


def write_table(predictions: pd.DataFrame, path: str, class_names: Sequence[str] = ()) -> None:
    """Writes predictions as one table, by the ending of its name: .csv, .jsonl or .parquet; local or s3://.

    In a CSV, which is opened in spreadsheets, shares and radii are JSON objects by the names of the classes, which are
    their numbers where none are given: of "3:1" a spreadsheet makes a time of day.

    Raises:
        UserError: another ending, or the file cannot be written.
    """
    check_table(path)
    rows = predictions.drop(columns="version").astype({"answer": "Int32"})  # class 3 where others abstain, not 3.0
    if path.endswith(".parquet"):
        data = rows.to_parquet(index=False)
        assert data is not None
    elif path.endswith(".jsonl"):
        text = rows.to_json(orient="records", lines=True, force_ascii=False, double_precision=15)
        data = text.encode()
    else:
        flat = rows.assign(
            shares=[_shares(shares, class_names) for shares in rows["shares"]],
            radius_if=[_radii(radii, class_names) for radii in rows["radius_if"]],
        )
        data = flat.to_csv(index=False).encode()
    Store(path).write("", data)


def _shares(shares: Any, class_names: Sequence[str]) -> str:
    """A list of a table as text; what is missing is empty."""
    return _by_name({one["class"]: one["share"] for one in shares}, class_names) if np.ndim(shares) else ""


def _radii(radii: Any, class_names: Sequence[str]) -> str:
    """A list of a table as text, without the classes that have no costly mistake; what is missing is empty."""
    if not np.ndim(radii):
        return ""
    return _by_name({y: radius for y, radius in enumerate(radii) if not np.isnan(radius)}, class_names)


def _by_name(numbers: dict[int, float], class_names: Sequence[str]) -> str:
    named = {class_names[k] if class_names else str(k): number for k, number in numbers.items()}
    return json.dumps(named, ensure_ascii=False)


def check_table(path: str) -> None:
    """Refuses a file whose name does not say what kind of table it is.

    Raises:
        UserError: naming it.
    """
    if not path.endswith((".csv", ".jsonl", ".parquet")):
        raise UserError(f"out is {path!r}; its ending says what is written: .csv, .jsonl or .parquet")
