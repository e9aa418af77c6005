"""The front of several models where rob_cs is certified on few images at large n, and accuracy on many at small n.

    python -m jobs.front --robust RUN --robust RUN2 --accurate RUN3 --accurate RUN4 --radius 0.25 --out DIR

Runs of one model are matched by the checkpoint's name. For one run a model, `raycsr report` draws the same.
"""

import re
import sys

import pandas as pd

from raycsr.certification import METRICS
from raycsr.cli import run_job
from raycsr.errors import UserError
from raycsr.reports import (
    Document,
    as_markdown,
    as_text,
    at_equal_accuracy,
    equal_accuracy_table,
    front_table,
    summary_table,
)
from raycsr.reports import front as best_of_each
from raycsr.reports.curves import plot_front
from raycsr.store import Store
from raycsr.verbs.report import report

OF_SEEDS = [name for name, metric in METRICS.items() if metric.population.of_seed_classes]
OF_ALL_IMAGES = {
    "collapsed",
    *(one for name in METRICS if name not in OF_SEEDS for one in (name, METRICS[name].population.count)),
}


def joined(robust: pd.DataFrame, accurate: pd.DataFrame) -> pd.DataFrame:
    """One table of two reports at one radius: what is about all images from the second, the rest from the first.

    Raises:
        UserError: A model, cost matrix or rule of the first is not in the second.
    """
    keys = ["run", "costs", "rule_id"]
    columns = [name for name in accurate if re.sub("_(low|high|guaranteed)$", "", str(name)) in OF_ALL_IMAGES]
    both = robust.drop(columns=columns).merge(accurate[keys + columns], on=keys, how="left", validate="1:1")
    lone = both[both["accuracy"].isna()]
    if len(lone):
        raise UserError(f"--accurate has no run of {lone['run'].iloc[0]} with rule {lone['rule'].iloc[0]!r}; add one")
    return both


def main(*, robust: list[str], accurate: list[str], radius: float, out: str) -> None:
    """Prints the joined tables and writes front.png and front.md.

    Args:
        robust: Runs of images of seed classes, n large.
        accurate: Runs of images of all classes.
        radius: L2 radius, in [0, 1] pixel units.
        out: Folder to write to.
    """
    points = joined(*(report(run=runs, radii=[radius]) for runs in (robust, accurate)))
    tables = [summary_table(points), front_table(best_of_each(points)), equal_accuracy_table(at_equal_accuracy(points))]
    document = Document(f"Front at radius {radius:g}", tables)
    store = Store(out)
    store.write("front.md", as_markdown(document).encode())
    store.write("front.png", plot_front(points))
    print(as_text(document))


if __name__ == "__main__":
    sys.exit(run_job(main))
