"""Stored results: their schema, where they are, reading and writing them, tables and plots. Knows no Ray."""

from raycsr.results.api import load_certificates, load_votes
from raycsr.results.locations import find_experiments, find_runs, list_runs, resolve_run
from raycsr.results.owners import Ownership
from raycsr.results.runs import Run, certificate_set, certify_table, missing_images
from raycsr.results.schema import SCHEMA_VERSION, histograms, sparse_votes, votes_table
from raycsr.results.store import PATIENCE, Store
from raycsr.results.tables import (
    at_equal_accuracy,
    format_equal_accuracy,
    format_front,
    format_summary,
    front,
    markdown_table,
    read_locuslab_tsv,
)

__all__ = [
    "PATIENCE",
    "SCHEMA_VERSION",
    "Ownership",
    "Run",
    "Store",
    "at_equal_accuracy",
    "certificate_set",
    "certify_table",
    "find_experiments",
    "find_runs",
    "format_equal_accuracy",
    "format_front",
    "format_summary",
    "front",
    "histograms",
    "list_runs",
    "load_certificates",
    "load_votes",
    "markdown_table",
    "missing_images",
    "read_locuslab_tsv",
    "resolve_run",
    "sparse_votes",
    "votes_table",
]
