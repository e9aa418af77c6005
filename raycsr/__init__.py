"""raycsr: cost-sensitive randomized smoothing at cluster scale."""
