"""The metrics: which one decides, and how one more is added."""

import subprocess
import sys

import pytest

from raycsr.certification.metrics import METRICS, metric_of
from raycsr.costs import CostMatrix


@pytest.mark.parametrize(
    ("values", "metric"),
    [
        ([[0, 1], [1, 0]], "rob_cs"),
        ([[0, 10], [0, 0]], "rob_cs"),
        ([[0, 10], [1, 0]], "rob_cost"),
        ([[0, 0], [0, 0]], "rob_cs"),
        ([[0, 1e-8], [1e-9, 0]], "rob_cost"),  # in a large unit
        ([[0, 0.3], [0.1 + 0.2, 0]], "rob_cs"),  # as equal as floating point has them
    ],
)
def test_where_costs_differ_in_size_what_is_left_of_them_decides(values, metric):
    assert metric_of(CostMatrix(values)) == metric


# What a file of metrics/ and a line of METRICS would say, and what follows from them.
ONE_MORE = """
from raycsr.certification import METRICS
from raycsr.certification.intervals import share_intervals
from raycsr.certification.metrics.record import SEEDS, Metric

METRICS["seed_certified"] = Metric(
    title="certified seeds", about="seeds that are certified", population=SEEDS,
    more_is_better=True, intervals=share_intervals, guaranteed=True,
    values=lambda images: images.correct[:, None] & images.certified("standard_radius"), shows_interval=True)

import numpy as np
from raycsr.certification import certify_counts, summarize
from raycsr.costs import CostMatrix
from raycsr.distributed.options import SearchOptions
from raycsr.reports.comparison import merits
from raycsr.reports.tables import front_table, ranking_table, summary_table

costs = CostMatrix.seedwise(2, [1])
counts = np.array([[0, 1000], [40, 960], [1000, 0], [900, 100]])
certificates = certify_counts(counts, counts, [1, 1, 1, 0], costs=costs, sigma=0.5, sampling="fixed")
summary = summarize(certificates, costs=costs, radii=[0.5, 1.0])
print(summary["seed_certified"].tolist(), summary["seed_certified_guaranteed"].tolist())
row = summary[:1].assign(run="a", costs="c", rule="argmax", rule_id="argmax", collapsed="", metric="rob_cs", best=True)
titles = lambda table: [column.title for column in table.columns]
print(titles(summary_table(row))[-2:], summary_table(row).rows[0][-2][:7])
ranked = row.assign(within_budget=True, place=1)
print("certified seeds" in titles(front_table(row)), "certified seeds" in titles(ranking_table(ranked)))
print(merits(row, "seed_certified").tolist(), "seed_certified" in SearchOptions.__doc__)
"""


def test_a_metric_more_is_summed_up_tabled_ranked_and_named():
    done = subprocess.run([sys.executable, "-W", "error", "-c", ONE_MORE], capture_output=True, text=True)
    assert done.stdout.splitlines() == [
        "[0.6666666666666666, 0.3333333333333333] [0.3333333333333333, 0.0]",
        "['certified seeds', 'certified seeds guaranteed'] 0.667 [",
        "True True",
        "[0.6666666666666666] True",
    ], done.stderr


@pytest.mark.parametrize("name", METRICS)
def test_a_metric_has_a_title_and_is_of_a_population_that_is_counted_or_of_seeds(name):
    metric = METRICS[name]
    assert metric.title and (metric.population.count or metric.population.of_seed_classes)
