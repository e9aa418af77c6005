"""Per-image tables as locuslab/smoothing's certify.py writes them: ours for its analysis, and those of others."""

import os
from datetime import timedelta
from decimal import Decimal, InvalidOperation

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from raycsr.errors import UserError
from raycsr.store import Store

_COLUMNS = ("idx", "label", "predict", "radius", "correct")  # and the time, which nothing here needs
_DIGITS = 3  # that certify.py writes of a radius, without zeros at the end
_MOST_CLASSES = 10_000  # a label beyond is no class of an image, but would be counted up to
_MOST_RADIUS = 1e9  # L2 in pixel units: far beyond any
_QUOTED = 60  # characters of a line in a message


def write_locuslab_tsv(certificates: pd.DataFrame, seconds: ArrayLike | None = None) -> str:
    """Standard certificates -> a table as locuslab/smoothing's certify.py writes it, for the code that reads those.

    Args:
        certificates: Certificates of one decision rule; `image_id` becomes idx, so it should be the image's number.
        seconds: Seconds that each image took; 0 by default; (N,).

    Returns:
        The table, tab-separated: idx, label, predict, radius, correct, time, and a line an image, in order. predict
        is -1 and the radius 0 where the smoothed classifier abstained and where the image has an error, which such
        tables do not tell apart. Radii have all their digits: three, as certify.py writes, may be rounded up.
    """
    answered = ~certificates["abstain"].astype(bool) & certificates["prediction"].notna()
    predict = certificates["prediction"].where(answered, -1).astype("int64")
    rows = zip(
        certificates["image_id"],
        certificates["label"],
        predict,
        certificates["standard_radius"].where(answered, 0.0).astype(float),
        (predict == certificates["label"]).astype(int),
        np.zeros(len(certificates)) if seconds is None else np.asarray(seconds, float),
        strict=True,
    )
    lines = ["idx\tlabel\tpredict\tradius\tcorrect\ttime"]
    lines += ["\t".join(map(str, (*row, timedelta(seconds=took)))) for *row, took in rows]
    return "\n".join([*lines, ""])


def is_table(location: str) -> bool:
    """Whether a location is a file, which can be no run but a table; local or s3://."""
    folder, name = os.path.split(location)
    return bool(name) and Store(folder or ".").exists(name)


def read_locuslab_tsv(path: str, alpha: float | None = None) -> pd.DataFrame:
    """Reads a table of locuslab/smoothing's certify.py (idx, label, predict, radius, correct, time).

    Args:
        path: The table, local or s3://; `predict` is -1 where the smoothed classifier abstained.
        alpha: Failure probability of one image's certificate, which such a table does not say (certify.py's default,
            and that of the published tables, is 0.001: Cohen et al. 2019, section 4).

    Returns:
        A certificates frame that has only the standard certificate: cost_sensitive_radius is null and the
        target lists are empty, since the table has no votes to certify them from. alpha is NaN where it is not
        given. A radius is half a unit of its last digit less than written, of the third digit where it has fewer:
        it may have been rounded up.

    Raises:
        UserError: where the file is not such a table, or naming the first line that is no result of one.

    Example:
        >>> path = folder / "cohen.tsv"
        >>> rows = ["idx\\tlabel\\tpredict\\tradius\\tcorrect\\ttime", "0\\t3\\t3\\t1.530\\t1\\t0:00:17"]
        >>> size = path.write_text("\\n".join(rows))
        >>> read_locuslab_tsv(str(path), alpha=0.001)[["image_id", "prediction", "standard_radius"]]
          image_id  prediction  standard_radius
        0        0           3           1.5295
    """
    number, header, rows = 1, [], []  # type: int, list[str], list[tuple]
    first_seen: dict[int, int] = {}
    for number, line in enumerate(_lines(path), 1):
        cells = line.split("\t")
        if number == 1:
            header = _header(path, cells)
            continue
        if cells == header:
            raise UserError(
                f"{path} has a second header in line {number}: several tables in one file; split it there, and name "
                "each"
            )
        row = _row(path, number, line, dict(zip(header, cells, strict=False)) if len(cells) == len(header) else {})
        if row[0] in first_seen:
            raise UserError(
                f"line {number} of {path} has idx {row[0]}, as line {first_seen[row[0]]} has; an image counts once: "
                "delete one of the two"
            )
        first_seen[row[0]] = number
        rows.append(row)
    if not rows:
        raise UserError(f"{path} has no results, only a header; certify some images first")
    idx, label, predict, radius = (np.array(column) for column in zip(*rows, strict=True))
    abstain = predict == -1
    empty = [np.empty(0)] * len(rows)
    return pd.DataFrame(
        {
            "image_id": idx.astype(str).astype(object),
            "rule": "argmax",
            "label": label.astype("int32"),
            "prediction": pd.Series(predict, dtype="Int64").mask(abstain),
            "abstain": abstain,
            "standard_radius": radius,
            "p_a_lower_standard": np.nan,
            "p_a_lower": np.nan,
            "cost_sensitive_radius": np.nan,
            "p_b_upper": empty,
            "pairwise_radius": empty,
            "alpha": np.nan if alpha is None else alpha,
            "error": None,
        }
    )


def _lines(path: str) -> list[str]:
    """The lines of a file, without what ends them."""
    folder, name = os.path.split(path)
    try:
        text = Store(folder or ".").read(name).decode("utf-8-sig")
    except UserError as error:
        raise UserError(f"cannot read {path}: {str(error).rsplit(': ', 1)[-1]}") from error
    except UnicodeDecodeError:
        raise UserError(f"{path} is not a locuslab table: it is no text; {_NEEDED}") from None
    return [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")]


_NEEDED = f"its first line must have the columns {', '.join(_COLUMNS)}, with a tab between"


def _header(path: str, cells: list[str]) -> list[str]:
    absent = [name for name in _COLUMNS if cells.count(name) != 1]
    if absent:
        raise UserError(f"{path} is not a locuslab table: it has no column {', '.join(absent)}; {_NEEDED}")
    return cells


def _row(path: str, number: int, line: str, cells: dict[str, str]) -> tuple[int, int, int, float]:
    """idx, label, predict and the radius less what it may have been rounded up by, of one line."""
    try:
        idx, label, predict, correct = (int(cells[name]) for name in ("idx", "label", "predict", "correct"))
        radius = Decimal(cells["radius"])
        fits = idx >= 0 and 0 <= label < _MOST_CLASSES and -1 <= predict < _MOST_CLASSES
        if not fits or not 0 <= radius < _MOST_RADIUS or correct != (predict == label) or (predict < 0 and radius > 0):
            raise ValueError
        return idx, label, predict, _lowered(radius)
    except (KeyError, ValueError, InvalidOperation):
        shown = line if len(line) <= _QUOTED else f"{line[:_QUOTED]}..."
        raise UserError(
            f"line {number} of {path} is no result: {shown!r}; mend or delete it (classes are 0 to "
            f"{_MOST_CLASSES - 1}, predict is -1 and the radius 0 for an abstention, correct is whether predict is "
            "the label)"
        ) from None


def _lowered(radius: Decimal) -> float:
    """A radius less half a unit of its last digit, as it may have been rounded up by so much; never below 0."""
    if radius == 0:
        return 0.0
    digits = max(_DIGITS, len(radius.as_tuple().digits))
    return float(radius - Decimal(5).scaleb(radius.adjusted() - digits))
