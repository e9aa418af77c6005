"""Attacking a run's images, on actors or in this process."""
