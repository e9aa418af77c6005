"""Entry point of `ray job submit`: `python -m jobs.attack` is `raycsr attack` on the running cluster."""

from jobs import run_verb

if __name__ == "__main__":
    run_verb("attack")
