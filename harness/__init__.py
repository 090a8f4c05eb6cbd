"""Cells, what is measured of them, training, and the command line. Importing this package imports no torch."""
