"""Sweeps: functions that return cells. A user's own are in any Python file."""
