"""Searching on Ray Tune: a space of trainings, its trials and who is told of them."""
