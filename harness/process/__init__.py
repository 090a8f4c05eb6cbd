"""The process that measures: its ranks, signals, claim on the run folder, and circumstances."""
