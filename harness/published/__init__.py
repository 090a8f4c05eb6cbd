"""What papers and their repositories published."""
