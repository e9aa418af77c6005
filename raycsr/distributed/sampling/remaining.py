"""What of a run is still to be drawn: images that lack votes of a rule, and those whose votes decide too little."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from raycsr.certification import Statements, Tallies
from raycsr.results import VOTES, Run, begun_here, deduplicated, missing_images, rows_of, sparse_votes, texts_of_rules
from raycsr.results.listing import pixels_in

_COLUMNS = ["image_id", "image_sha", "rule", "label", "error", "n", "decided", "continues"]
_COLUMNS += ["device", "batch_size", "part"]
_VOTES = ["selection", "estimation"]
_PART = VOTES.append(pa.field("part", pa.string()))


class Remaining:
    """Answers what a run lacks, as often as asked; each of its parts is read once.

    Attributes:
        parts: Names of the votes parts that were there at the last look.
        rows: Their rows, without votes.
    """

    def __init__(self, run: Run, statements: Statements | None, max_samples: int) -> None:
        """Reads the parts that are committed.

        Args:
            run: Run to look at.
            statements: Statements that its votes are to decide; None where all images get the same number of samples.
            max_samples: Largest number of estimation samples of an image.
        """
        self._run, self._statements, self._max_samples = run, statements, max_samples
        self._num_classes = run.manifest()["num_classes"]
        self._read: dict[str, pa.Table] = {}
        self.parts: list[str] = []
        self.read()

    def read(self) -> None:
        """Reads the parts that were committed since the last look."""
        before, self.parts = set(self.parts), self._run.vote_parts()
        columns = [*_COLUMNS, *(() if self._statements is None else _VOTES)]
        new = [name for name in self.parts if name not in before]
        self._read |= self._run.read_votes(new, columns, self._without_votes)
        nothing = self._without_votes(pa.schema([_PART.field(name) for name in columns]).empty_table())
        self.rows = pa.concat_tables([nothing, *(self._read[name] for name in self.parts if name in self._read)])
        self._undecided = None if self._statements is None else self._undecided_rows(self._statements)

    def sampled_pixels(self, image_ids: pd.Series) -> pd.DataFrame:
        """As `Run.sampled_pixels`."""
        return pixels_in(self.rows, image_ids)

    def to_sample(self, wanted: pd.DataFrame, rules: Sequence[str], *, retry_errors: bool) -> pd.DataFrame:
        """What is to be drawn: images that lack rules' votes, and of a sequential run those that are to go on.

        Args:
            wanted: Rows of the listing: image_id and label.
            rules: Ids of the wanted decision rules.
            retry_errors: Whether to draw again what failed.

        Returns:
            image_id, label, rules (with a space between), continues (the part with the votes from before, or ""), and
            the device and batch_size that drew those ("" and 0 where there are none).
        """
        begun = begun_here(self.rows)
        if retry_errors:
            begun = begun.filter(begun["error"].is_null())
        missing = missing_images(wanted, begun, rules).assign(continues="", device="", batch_size=0)
        if self._undecided is None:
            return missing
        going_on = self._going_on(self._undecided, wanted, rules)
        if not retry_errors:
            tried = self.rows.filter(self.rows["error"].is_valid()).to_pandas()
            keys = ["image_id", "continues"]
            going_on = going_on[~pd.MultiIndex.from_frame(going_on[keys]).isin(pd.MultiIndex.from_frame(tried[keys]))]
        return pd.concat([missing, going_on], ignore_index=True)

    def errors(self, wanted: pd.DataFrame, rules: Sequence[str]) -> dict[str, str]:
        """Images that lack votes under some rule, or that could not go on -> why."""
        errored = self.rows.filter(self.rows["error"].is_valid())
        if not len(errored):
            return {}
        left = set(self.to_sample(wanted, rules, retry_errors=True)["image_id"])
        reasons = dict(zip(errored["image_id"].to_pylist(), errored["error"].to_pylist(), strict=True))
        return {i: reasons[i] for i in wanted["image_id"] if i in reasons and i in left}

    def _undecided_rows(self, statements: Statements) -> pa.Table:
        """The rows that stand, and have fewer votes than they may have and too few for the statements."""
        rows = deduplicated(self.rows)
        rows = rows.filter(pa.array(self._may_go_on(rows)))
        tallies = {name: rows[name].to_numpy() for name in rows.column_names if name not in _COLUMNS}
        decided = statements.are_decided(Tallies.of_columns(rows["n"].to_numpy(), tallies))
        return rows.filter(pa.array(~decided))

    def _going_on(self, undecided: pa.Table, wanted: pd.DataFrame, rules: Sequence[str]) -> pd.DataFrame:
        """The images of such rows under some rules, those together that go on from one part."""
        images = rows_of(undecided["image_id"], wanted)
        of_rules = pc.is_in(undecided["rule"], value_set=pa.array(rules, pa.string())).to_numpy()
        some = of_rules & (images >= 0)
        rows, images = undecided.filter(pa.array(some)), images[some]
        part = pc.index_in(rows["part"], value_set=rows["part"].unique()).to_numpy().astype(np.int64)
        _, first, group = np.unique(part * len(wanted) + images, return_index=True, return_inverse=True)
        flags = np.zeros((len(first), len(rules)), bool)
        flags[group, pc.index_in(rows["rule"], value_set=pa.array(rules, pa.string())).to_numpy()] = True
        of_first = rows.select(["image_id", "part", "device", "batch_size"]).take(pa.array(first)).to_pandas()
        going_on = of_first.rename(columns={"part": "continues"})
        labels = wanted["label"].to_numpy()[images[first]]
        return going_on.assign(label=labels, rules=texts_of_rules(flags, rules))

    def _without_votes(self, part: pa.Table) -> pa.Table:
        """The part's rows with the tallies of those that may go on in the place of their votes."""
        column = part.schema.get_field_index("image_sha")  # a digest for all rules of an image: once, not as often
        part = part.set_column(column, "image_sha", part["image_sha"].dictionary_encode())
        if self._statements is None:
            return part
        votes, open_ = part.select(_VOTES), self._may_go_on(part)
        part, some = part.drop_columns(_VOTES), votes.filter(pa.array(open_))
        selection, estimation = (sparse_votes(some[name]) for name in _VOTES)
        labels = part["label"].to_numpy()[open_].astype(np.int64)
        tallies = self._statements.tally(selection, estimation, labels, self._num_classes)
        for name, column in tallies.columns().items():
            spread = np.zeros(len(part), np.int64)
            spread[open_] = column
            part = part.append_column(name, pa.array(spread))
        return part

    def _may_go_on(self, rows: pa.Table) -> np.ndarray:
        """Rows whose votes may be too few: all are whole, but were not drawn for these statements, and not to the end.

        Returns:
            Flags, bool (N,).
        """
        assert self._statements is not None
        other = pc.fill_null(pc.not_equal(rows["decided"], self._statements.digest), True)
        fewer = pc.less(rows["n"], self._max_samples)
        return pc.and_(pc.and_(rows["error"].is_null(), other), fewer).to_numpy()
