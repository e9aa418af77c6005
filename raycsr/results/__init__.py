"""Stored results: their schema, where they are, reading and writing them, tables and plots. Knows no Ray."""

from raycsr.results.api import certify_stored, load_certificates, load_votes
from raycsr.results.certificate_sets import CertificateSet, certificate_set, certify_table
from raycsr.results.certified import (
    Certified,
    certified_curves,
    default_radii,
    legible,
    load_certified,
    pairwise_tables,
    reference_and_best,
    summaries,
)
from raycsr.results.collect import collect_certificates, collect_trials
from raycsr.results.image_sets import ImageSet, known_sets, note_known_sets, seen_images, seen_images_of, trained_on
from raycsr.results.locations import find_experiments, find_runs, list_runs, resolve_run, runs_at
from raycsr.results.locuslab import read_locuslab_tsv
from raycsr.results.merging import begun_here, missing_images, once, rows_of, texts_of_rules
from raycsr.results.owners import Ownership, own_checkpoint
from raycsr.results.ranking import rank_points, rank_trials
from raycsr.results.runs import Run
from raycsr.results.schema import SCHEMA_VERSION, VOTES, histograms, refuse_other_schema, sparse_votes, votes_table
from raycsr.results.tables import (
    at_equal_accuracy,
    format_equal_accuracy,
    format_front,
    format_ranking,
    format_summary,
    front,
    in_markdown,
    markdown_table,
)

__all__ = [
    "SCHEMA_VERSION",
    "VOTES",
    "CertificateSet",
    "Certified",
    "ImageSet",
    "Ownership",
    "Run",
    "at_equal_accuracy",
    "begun_here",
    "certificate_set",
    "certified_curves",
    "certify_stored",
    "certify_table",
    "collect_certificates",
    "collect_trials",
    "default_radii",
    "find_experiments",
    "find_runs",
    "format_equal_accuracy",
    "format_front",
    "format_ranking",
    "format_summary",
    "front",
    "histograms",
    "in_markdown",
    "known_sets",
    "legible",
    "list_runs",
    "load_certificates",
    "load_certified",
    "load_votes",
    "markdown_table",
    "missing_images",
    "note_known_sets",
    "once",
    "own_checkpoint",
    "pairwise_tables",
    "rank_points",
    "rank_trials",
    "read_locuslab_tsv",
    "reference_and_best",
    "refuse_other_schema",
    "resolve_run",
    "rows_of",
    "runs_at",
    "seen_images",
    "seen_images_of",
    "sparse_votes",
    "summaries",
    "texts_of_rules",
    "trained_on",
    "votes_table",
]
