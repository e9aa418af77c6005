"""Certificates from votes: bounds, radii and the numbers that sum them up. Needs neither torch nor Ray."""

from raycsr.certification.answers import Answer
from raycsr.certification.bounds import (
    BOUNDS,
    MOST_SAMPLES,
    binomial_lower,
    binomial_upper,
    check_alpha,
)
from raycsr.certification.by_class import (
    TELLING_IMAGES,
    class_recalls,
    collapse_in_words,
    collapsed_classes,
    costliest_images,
    pairwise_robustness,
)
from raycsr.certification.certificates import certify_counts, certify_votes
from raycsr.certification.comparison import compare
from raycsr.certification.groups import group_column, group_numbers
from raycsr.certification.looks import looks
from raycsr.certification.methods import METHODS, NEWEST, Method, largest_radius, method_named
from raycsr.certification.metrics import METRICS, metric_of
from raycsr.certification.statements import WORTH, Statements, Tallies
from raycsr.certification.summary import summarize
from raycsr.certification.top_k import top_k_radius
from raycsr.certification.votes import SparseVotes

__all__ = [
    "BOUNDS",
    "METHODS",
    "METRICS",
    "MOST_SAMPLES",
    "NEWEST",
    "TELLING_IMAGES",
    "WORTH",
    "Answer",
    "Method",
    "SparseVotes",
    "Statements",
    "Tallies",
    "binomial_lower",
    "binomial_upper",
    "certify_counts",
    "certify_votes",
    "check_alpha",
    "class_recalls",
    "collapse_in_words",
    "collapsed_classes",
    "compare",
    "costliest_images",
    "group_column",
    "group_numbers",
    "largest_radius",
    "looks",
    "method_named",
    "metric_of",
    "pairwise_robustness",
    "summarize",
    "top_k_radius",
]
