"""Measurements; `wamrl bench` runs those that `targets.py` lists."""
