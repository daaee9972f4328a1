"""Personalization: teaching a model of images or music a new concept from a few examples."""
