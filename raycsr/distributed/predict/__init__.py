"""Predicting on Ray Data: a checked job, its blocks, the actors that draw votes and say what they prove."""
