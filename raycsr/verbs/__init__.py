"""The verbs: each module is one, and reads from top to bottom."""
