"""Entry points and configurations for jobs on a cluster, and the benchmark."""
