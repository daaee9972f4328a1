"""Metrics: pure functions from arrays to numbers, in float64."""
