"""What is known of a sweep's trials, in JSON: a sweep goes on from it and the checkpoints, and unpickles nothing."""

import json
import math
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.experiment import Trial
from ray.tune.search.basic_variant import BasicVariantGenerator

from raycsr.certification import METRICS
from raycsr.errors import UserError
from raycsr.results import Ownership
from raycsr.store import READERS, Store

CHECKPOINT = "checkpoint.pt"
_RECORD = "trial.json"
_CLOCK = "clock.json"
_EVENTS = "events.out.tfevents.*"  # TensorBoard's


@dataclass
class TrialRecord:
    """A trial, as its file trial.json has it.

    Attributes:
        trial: Id of the trial, which is the name of its folder.
        point: Point of the space.
        results: Result of each validation: `epoch`, the certified metrics, `loss`, `images_per_second`, `precision`,
            `seconds`.
        ended: Whether nothing is left to do: it is finished, it was stopped, or the user has to mend something.
        error: Reason why it failed; where it has not ended, the next command tries it again.
    """

    trial: str
    point: dict[str, Any]
    results: list[dict[str, Any]] = field(default_factory=list)
    ended: bool = False
    error: str | None = None

    def add(self, result: dict[str, Any]) -> None:
        """Takes what the trial reports: a mistake, or a validation, of which an epoch has one."""
        self.error = result.get("error")
        if self.error is None and result["epoch"] not in self.epochs:
            before = self.results[-1]["seconds"] if self.results else 0.0
            metrics = {name: result.get(name, math.nan) for name in METRICS}  # a trial may be older than a metric
            facts = metrics | {name: result[name] for name in ("collapsed", *_FACTS)}
            self.results.append({**facts, "seconds": before + result["time_this_iter_s"]})

    @property
    def epochs(self) -> set[int]:
        """Those with a result."""
        return {result["epoch"] for result in self.results}


_FACTS = ("epoch", "loss", "images_per_second", "precision")


def report_of(entry: dict[str, Any]) -> dict[str, Any]:
    """What a trial reports after an epoch that was validated, by its entry in the history (`entry_of`)."""
    metrics = {name: math.nan if value is None else value for name, value in entry["metrics"].items()}
    # TensorBoard and MLflow go by timesteps_total: a trial that went on continues its curves
    facts = {name: entry[name] for name in _FACTS[1:]}
    return {"collapsed": "", **metrics, "epoch": entry["number"], **facts, "timesteps_total": entry["number"]}


def read_record(folder: Store, trial: str) -> TrialRecord | None:
    """Reads what is known of a trial; None where nothing is.

    Args:
        folder: Folder of the sweep.
        trial: Id of the trial.

    Raises:
        UserError: where the file is damaged.
    """
    name = f"{trial}/{_RECORD}"
    if not folder.exists(name):
        return None
    try:
        facts = json.loads(folder.read(name))
        record = TrialRecord(trial, facts["point"], facts["results"], facts["ended"], facts["error"])
        for one in record.results:
            for metric in METRICS:
                value = one.get(metric)
                one[metric] = math.nan if value is None else float(value)
            one["epoch"], one["seconds"] = int(one["epoch"]), float(one["seconds"])
            _refuse_others(one, collapsed=str, precision=str)
        _refuse_others(facts, point=dict, results=list, ended=bool, error=str | None)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:100]
        raise UserError(
            f"{folder.location}/{name} is damaged ({reason}); delete it, and the trial goes on from its checkpoint"
        ) from error
    return record


def _refuse_others(facts: dict[str, Any], **types: Any) -> None:
    for name, kind in types.items():
        if not isinstance(facts[name], kind):
            raise TypeError(f"{name} is {facts[name]!r}")


def read_records(folder: Store, prefix: str) -> dict[str, TrialRecord]:
    """Reads what is known of all trials, by their ids.

    Args:
        folder: Folder of the sweep.
        prefix: Prefix of the trials' ids.

    Raises:
        UserError: where a file is damaged.
    """
    trials = [name for name in folder.names("") if re.fullmatch(rf"{prefix}_\d+", name)]
    with ThreadPoolExecutor(READERS) as pool:
        found = pool.map(lambda trial: read_record(folder, trial), trials)
        return {record.trial: record for record in found if record is not None}


def write_record(folder: Store, record: TrialRecord) -> None:
    """Writes down what is known of a trial."""
    facts = asdict(record)
    del facts["trial"]
    facts["results"] = [{k: None if v != v else v for k, v in result.items()} for result in record.results]
    folder.write(f"{record.trial}/{_RECORD}", json.dumps(facts, indent=1).encode())


class TrialsLeft(BasicVariantGenerator):
    """The trials of a space, in one order and with the same ids whenever it is asked, without those that have ended."""

    def __init__(self, prefix: str, records: dict[str, TrialRecord], *, max_concurrent: int, seed: int) -> None:
        """Begins with the first.

        Args:
            prefix: Prefix of the trials' ids.
            records: Records of trials by id; those that begin are added.
            max_concurrent: Number of trials at a time.
            seed: Seed of the random hyper-parameters.
        """
        super().__init__(max_concurrent=max_concurrent, random_state=seed)
        self._uuid_prefix = f"{prefix}_"
        self._records = records

    def next_trial(self) -> Trial | None:
        """Returns the next trial, or None where there is none now.

        Raises:
            UserError: Where the trial that is known by this id was at another point.
        """
        while (trial := super().next_trial()) is not None:
            point = json.loads(json.dumps(trial.config))
            record = self._records.setdefault(trial.trial_id, TrialRecord(trial.trial_id, point))
            if record.point != point:
                raise UserError(
                    f"trial {trial.trial_id} of this sweep was at {record.point}, and is now drawn at {point}: the "
                    "versions of ray or numpy differ; go on with those it was begun with, or give another --name"
                )
            if not record.ended:
                return trial
            self.on_trial_complete(trial.trial_id)
        return None


class Keeper(tune.Callback):
    """Writes each trial down as it goes, with TensorBoard's files, and stops a driver that has been replaced."""

    def __init__(self, folder: Store, records: dict[str, TrialRecord], owner: Ownership, spent: float) -> None:
        """Keeps nothing yet.

        Args:
            folder: Folder of the sweep.
            records: Records of trials by id.
            owner: Ownership of the sweep.
            spent: Seconds that earlier commands took.
        """
        self._folder, self._records, self._owner = folder, records, owner
        self._spent, self._start = spent, time.monotonic()
        self._events: dict[str, str | None] = {}  # trial -> where its TensorBoard files are

    def __getstate__(self) -> dict:
        """Tune pickles its callbacks into a file that nobody reads; a hold cannot be pickled."""
        return {}

    @property
    def spent(self) -> float:
        """Seconds that all commands took for this sweep."""
        return self._spent + time.monotonic() - self._start

    def note_time(self) -> None:
        """Writes down how long the sweep has taken."""
        self._folder.write(_CLOCK, json.dumps({"seconds": self.spent}).encode())

    def on_trial_result(self, iteration: int, trials: list[Trial], trial: Trial, result: dict, **info: Any) -> None:
        """Writes down what was reported."""
        self._owner.check()
        record = self._records[trial.trial_id]
        record.add(result)
        write_record(self._folder, record)
        self.note_time()
        self._events[trial.trial_id] = trial.local_path

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Writes down that it has ended: it is finished, or the scheduler stopped it."""
        self._owner.check()
        record = self._records[trial.trial_id]
        record.ended = bool(record.results) or record.error is not None
        write_record(self._folder, record)
        self._events[trial.trial_id] = trial.local_path

    def on_step_end(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        """Copies what TensorBoard's own callback has written by now."""
        self._owner.check()
        while self._events:
            trial, path = self._events.popitem()
            for file in _files(path):
                self._folder.write(f"{trial}/{file.name}", file.read_bytes())


def _files(path: str | None) -> Iterator[Path]:
    if path is not None:
        yield from Path(path).glob(_EVENTS)


def seconds_spent(folder: Store) -> float:
    """Seconds that earlier commands took for the trials of a sweep.

    Raises:
        UserError: where the file is damaged.
    """
    if not folder.exists(_CLOCK):
        return 0.0
    try:
        return max(float(json.loads(folder.read(_CLOCK))["seconds"]), 0.0)
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise UserError(f"{folder.location}/{_CLOCK} is damaged; delete it, and the time budget begins anew") from error
