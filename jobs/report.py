"""Entry point of `ray job submit`: `python -m jobs.report` is `raycsr report` on the running cluster."""

from jobs import run_verb

if __name__ == "__main__":
    run_verb("report")
