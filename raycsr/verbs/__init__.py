"""The verbs: each module is one, and reads from top to bottom.

What needs PyTorch is imported by the function that needs it: help, and what is wrong with options, wait for none of it.
"""
