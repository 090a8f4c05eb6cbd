"""Image sets that travel with the repository: one folder each, beside the script that made it."""
