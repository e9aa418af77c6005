"""Training a base classifier for robustness under Gaussian noise."""
