"""From a model spec to a base classifier: pixels in [0, 1] -> logits, with normalisation inside."""
