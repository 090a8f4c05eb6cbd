"""Cells that run elsewhere: what is submitted, what a job does, and the state of each cell."""
