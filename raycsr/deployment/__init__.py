"""The smoothed classifier at work: what was certified, deployed on images that nobody has labelled. Knows no Ray."""
