"""What people look at: one document of tables and pictures, as text, Markdown and a page, of stored results. No Ray."""

from raycsr.reports.certified import (
    Certified,
    certified_curves,
    default_radii,
    pairwise_tables,
    summaries,
)
from raycsr.reports.comparison import at_equal_accuracy, front, legible, rank_points, rank_trials, reference_and_best
from raycsr.reports.document import Column, Document, Notes, Paragraph, Section, Table
from raycsr.reports.loading import load_certified
from raycsr.reports.markdown import as_markdown
from raycsr.reports.tables import equal_accuracy_table, front_table, ranking_table, summary_table
from raycsr.reports.text import as_text

__all__ = [
    "Certified",
    "Column",
    "Document",
    "Notes",
    "Paragraph",
    "Section",
    "Table",
    "as_markdown",
    "as_text",
    "at_equal_accuracy",
    "certified_curves",
    "default_radii",
    "equal_accuracy_table",
    "front",
    "front_table",
    "legible",
    "load_certified",
    "pairwise_tables",
    "rank_points",
    "rank_trials",
    "ranking_table",
    "reference_and_best",
    "summaries",
    "summary_table",
]
