"""Certificates from votes: bounds, radii and the numbers that sum them up. Needs neither torch nor Ray."""

from raycsr.certification.bounds import BOUNDS, MOST_SAMPLES, binomial_lower, binomial_upper, largest_radius
from raycsr.certification.by_class import class_recalls, costliest_images, pairwise_robustness
from raycsr.certification.certificates import SparseVotes, certify_counts, certify_votes
from raycsr.certification.metrics import METRICS, summarize
from raycsr.certification.statements import HOPELESS_LEVEL, Statements, looks

__all__ = [
    "BOUNDS",
    "HOPELESS_LEVEL",
    "METRICS",
    "MOST_SAMPLES",
    "SparseVotes",
    "Statements",
    "binomial_lower",
    "binomial_upper",
    "certify_counts",
    "certify_votes",
    "class_recalls",
    "costliest_images",
    "largest_radius",
    "looks",
    "pairwise_robustness",
    "summarize",
]
