"""Cells, measuring and training them, jobs, and the command line. Importing this package imports no torch."""
