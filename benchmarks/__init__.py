"""Measurements; `python -m benchmarks` runs those that `targets.py` lists."""
