"""Reading results from a notebook or a program: pandas in hand, no Ray, local or s3://."""

import os

import pandas as pd
import pyarrow as pa

from raycsr.certification import Answer, method_named
from raycsr.costs import CostMatrix
from raycsr.errors import UserError
from raycsr.results.certificate_sets import OF_VOTES, certificate_set, certify_table
from raycsr.results.locations import resolve_run
from raycsr.results.prefix import only_counted
from raycsr.results.runs import Run
from raycsr.results.schema import VOTES


def load_votes(run: str | os.PathLike[str], rule: str | None = None) -> pd.DataFrame:
    """Reads a run's votes.

    Args:
        run: Run to read: its folder, a unique prefix of it, or `s3://...`.
        rule: Decision rule to read, by its id or as a person writes it; None for all.

    Returns:
        One row an (image_id, rule), with the columns of `raycsr.results.schema.VOTES`, among them `sampling`, how their
        number was chosen, and with sigma: all that `certify_stored` needs. Where the data has groups, also `group`.
        Of a run that its budget ended they are of the images that count alone, which a warning says.

    Raises:
        UserError: where there is no such run or rule, or its parts contradict each other.

    Example:
        >>> votes = load_votes(run)
        >>> votes[["image_id", "label", "rule", "n", "sampling", "sigma"]].head(2)
          image_id  label    rule     n sampling  sigma
        0  a/0.png      0  argmax  1000    fixed    0.5
        1  a/1.png      0  argmax  1000    fixed    0.5
    """
    found = resolve_run(run)
    votes = only_counted(found, found.with_groups(found.votes(*_ids(found, rule)).to_pandas()))
    return votes.assign(sigma=found.manifest()["sigma"])


def certify_stored(
    votes: pd.DataFrame, costs: CostMatrix, alpha: float = 0.001, answer: Answer | str = "argmax"
) -> pd.DataFrame:
    """Certifies votes as `load_votes` returns them, or a selection of its rows, by the bounds of their own design.

    Args:
        votes: Rows of one run, or of several at one sigma and of one design.
        costs: Cost matrix; (m, m).
        alpha: Failure probability of one image's certificate.
        answer: What the smoothed classifier says, given shares, as `raycsr.certify_counts` takes it.

    Returns:
        The rows that `raycsr.certify_counts` describes; and `group` where the votes have it.

    Raises:
        UserError: votes that lack a column, are of several sigmas or designs, or cannot be certified.

    Example:
        >>> costs = CostMatrix.from_spec("seed:1", 3)  # costs that nobody thought of when the run was sampled
        >>> certificates = certify_stored(load_votes(run), costs)
        >>> int(certificates["cost_sensitive_radius"].notna().sum())  # of the two images of class 1
        2
    """
    missing = [name for name in ("sigma", *VOTES.names) if name not in votes.columns]
    if missing:
        raise UserError(f"votes lack the column {missing[0]!r}; give rows of load_votes with all of its columns")
    sigmas = votes["sigma"].unique()
    if len(sigmas) > 1:
        raise UserError(
            f"votes at sigma {' and '.join(f'{s:g}' for s in sigmas)}; certify those of one sigma at a time"
        )
    try:
        table = pa.Table.from_pandas(votes[VOTES.names], schema=VOTES, preserve_index=False)
    except pa.ArrowException as error:  # it names the column last
        raise UserError(
            f"votes are not as load_votes gives them: {error.args[-1]}; keep them as Parquet, not as text"
        ) from error
    certificates = certify_table(table, costs, float(sigmas[0]) if len(sigmas) else 1.0, alpha, answer=answer)
    certificates = certificates.drop(columns=OF_VOTES)
    return certificates.assign(group=votes["group"].to_numpy()) if "group" in votes else certificates


def load_certificates(
    run: str | os.PathLike[str],
    costs: CostMatrix | str | None = None,
    alpha: float | None = None,
    rule: str | None = None,
    method: str | None = None,
    answer: Answer | str | None = None,
) -> pd.DataFrame:
    """Reads a run's certificates, or makes them from its votes where none are stored.

    Args:
        run: Run to read: its folder, a unique prefix of it, or `s3://...`.
        costs: Cost matrix, or a spec such as `seed:cat`; None for the only stored set.
        alpha: Failure probability of one image's certificate; by default 0.001, or that of the stored set.
        rule: Decision rule to read, by its id or as a person writes it; None for all.
        method: Method that certifies, one of `raycsr.certification.METHODS`; by default the newest of the run's
            design, for which what is stored by an older one is not read.
        answer: What the smoothed classifier says, given shares, such as `majority`; by default `argmax`, or that of the
            stored set.

    Returns:
        The rows that `raycsr.certify_counts` describes; and where the data has groups, a column `group`, by which
        `raycsr.summarize` gives its intervals. Of a run that its budget ended they are of the images that count alone,
        which a warning says.

    Raises:
        UserError: where there is no such run, rule, method or answer, or `costs` is needed to tell several sets apart.

    Example:
        >>> certificates = load_certificates(run, costs="pair:a/b", alpha=0.01)
        >>> certificates[["image_id", "label", "prediction", "standard_radius"]].head(2).round(2)
          image_id  label  prediction  standard_radius
        0  a/0.png      0           0              1.3
        1  a/1.png      0           1              1.3
    """
    found = resolve_run(run)
    rules, sampling = _ids(found, rule), found.manifest()["sampling"]
    if method is not None:
        method_named(method, sampling)
    stored = found.certificate_sets(method)
    (says,) = found.answers(["argmax" if answer is None else answer])
    if costs is None:
        of_alpha = {name: facts for name, facts in stored.items() if alpha in (None, facts["alpha"])}
        names = [name for name, facts in of_alpha.items() if answer is None or facts["answer"] == says]
        if len(names) != 1:
            raise UserError(
                f"run {found.run_id} has {len(names)} certificate sets ({', '.join(names)}); name one by costs=..., or "
                "answer=..."
            )
        return only_counted(found, found.with_groups(found.certificates(names[0], *rules)))
    matrix = found.costs(costs) if isinstance(costs, str) else costs
    level = 0.001 if alpha is None else alpha
    spec = costs if isinstance(costs, str) else ""
    name = certificate_set(spec, matrix, level, sampling, method, says)
    same = [other for other in stored if other.rsplit("-", 1)[-1] == name.rsplit("-", 1)[-1]]
    if same:
        return only_counted(found, found.with_groups(found.certificates(same[0], *rules)))
    votes, sigma = found.votes(*rules), found.manifest()["sigma"]
    made = certify_table(votes, matrix, sigma, level, method=method, answer=says)
    return only_counted(found, found.with_groups(made))


def _ids(run: Run, rule: str | None) -> list[str]:
    """The id of the rule that is wanted; none where all are."""
    return [] if rule is None else [run.rule_id(rule)]
