"""Entry point of `ray job submit`: `python -m jobs.predict` is `raycsr predict` on the running cluster."""

from jobs import run_verb

if __name__ == "__main__":
    run_verb("predict")
