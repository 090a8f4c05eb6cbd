"""What papers and their repositories have published."""
