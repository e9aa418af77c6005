"""Training on Ray: a plan, the fit, and several workers that train together."""
