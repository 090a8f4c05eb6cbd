"""Candidates side by side in one process: correct first, then measured interleaved."""
