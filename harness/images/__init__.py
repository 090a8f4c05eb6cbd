"""Images by index, and batches of them."""
