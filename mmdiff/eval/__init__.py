"""Measuring what was generated: sync of sound and picture, with controls and intervals."""
