"""Entry point of `ray job submit`: `python -m jobs.validate` is `raycsr validate` on a machine of the cluster."""

from jobs import run_verb

if __name__ == "__main__":
    run_verb("validate")
