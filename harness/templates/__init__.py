"""What `attention-bench new` writes, under another name."""
