"""The front of several models where rob_cs is certified on few images at large n, and accuracy on many at small n.

    python -m jobs.front --robust RUN --robust RUN2 --accurate RUN3 --accurate RUN4 --radius 0.25 --out DIR

Runs of one model are matched by the checkpoint's name. For one run a model, `raycsr report` draws the same.
"""

import re
import sys

import pandas as pd
from jsonargparse import ArgumentParser

from raycsr.errors import UserError
from raycsr.pipelines.report import report
from raycsr.results import Store, at_equal_accuracy, format_equal_accuracy, format_front, format_summary
from raycsr.results import front as best_of_each
from raycsr.results.plots import plot_front

OF_ALL_IMAGES = ("accuracy", "certified_accuracy", "acr", "target_recall", "num_images", "num_target", "collapsed")


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


def main() -> int:
    """Prints the joined tables and writes front.png and front.md."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--robust", action="append", required=True, help="run of images of seed classes, n large")
    parser.add_argument("--accurate", action="append", required=True, help="run of images of all classes")
    parser.add_argument("--radius", type=float, required=True)
    parser.add_argument("--out", required=True, help="folder")
    options = parser.parse_args()
    try:
        robust, accurate = (report(run=runs, radii=[options.radius]) for runs in (options.robust, options.accurate))
        points = joined(robust, accurate)
        parts = [format_summary(points), format_front(best_of_each(points))]
        text = "\n\n".join([*parts, format_equal_accuracy(at_equal_accuracy(points))])
        store = Store(options.out)
        store.write("front.md", text.encode())
        store.write("front.png", plot_front(points))
    except UserError as error:
        print(f"jobs.front: {error}", file=sys.stderr)
        return 2
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
