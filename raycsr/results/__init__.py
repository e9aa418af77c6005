"""Stored results: their schema, where they are, reading and writing them, tables and plots. Knows no Ray."""

from raycsr.results.attacks import load_attacks
from raycsr.results.certificate_sets import CertificateSet, certificate_set, certify_table
from raycsr.results.collect import collect_certificates, collect_trials
from raycsr.results.image_sets import ImageSet, known_sets, note_known_sets, seen_images, seen_images_of, trained_on
from raycsr.results.load import certify_stored, load_certificates, load_votes
from raycsr.results.locations import find_experiments, find_runs, list_runs, resolve_run, runs_at
from raycsr.results.locuslab import read_locuslab_tsv
from raycsr.results.merging import begun_here, deduplicated, missing_images, rows_of, texts_of_rules
from raycsr.results.owners import Ownership, own_checkpoint
from raycsr.results.predictions import load_predictions
from raycsr.results.runs import Run
from raycsr.results.schema import SCHEMA_VERSION, VOTES, histograms, refuse_other_schema, sparse_votes, votes_table

__all__ = [
    "SCHEMA_VERSION",
    "VOTES",
    "CertificateSet",
    "ImageSet",
    "Ownership",
    "Run",
    "begun_here",
    "certificate_set",
    "certify_stored",
    "certify_table",
    "collect_certificates",
    "collect_trials",
    "deduplicated",
    "find_experiments",
    "find_runs",
    "histograms",
    "known_sets",
    "list_runs",
    "load_attacks",
    "load_certificates",
    "load_predictions",
    "load_votes",
    "missing_images",
    "note_known_sets",
    "own_checkpoint",
    "read_locuslab_tsv",
    "refuse_other_schema",
    "resolve_run",
    "rows_of",
    "runs_at",
    "seen_images",
    "seen_images_of",
    "sparse_votes",
    "texts_of_rules",
    "trained_on",
    "votes_table",
]
