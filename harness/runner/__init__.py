"""Running cells, and their records."""
