"""What people look at: tables, plots and pages made of stored results. Knows no Ray."""

from raycsr.reports.certified import (
    Certified,
    certified_curves,
    default_radii,
    load_certified,
    pairwise_tables,
    summaries,
)
from raycsr.reports.comparison import at_equal_accuracy, front, legible, rank_points, rank_trials, reference_and_best
from raycsr.reports.tables import (
    format_equal_accuracy,
    format_front,
    format_ranking,
    format_summary,
    in_markdown,
    markdown_table,
)

__all__ = [
    "Certified",
    "at_equal_accuracy",
    "certified_curves",
    "default_radii",
    "format_equal_accuracy",
    "format_front",
    "format_ranking",
    "format_summary",
    "front",
    "in_markdown",
    "legible",
    "load_certified",
    "markdown_table",
    "pairwise_tables",
    "rank_points",
    "rank_trials",
    "reference_and_best",
    "summaries",
]
