"""Sampling on Ray Data: a checked job, its stream of blocks, the actors that draw votes."""
