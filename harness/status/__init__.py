"""The state of cells and the logs of their jobs, for people."""
