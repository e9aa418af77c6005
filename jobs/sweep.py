"""Entry point of `ray job submit`: `python -m jobs.sweep` is `raycsr sweep` on the running cluster."""

from jobs import run_verb

if __name__ == "__main__":
    run_verb("sweep")
