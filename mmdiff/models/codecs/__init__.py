"""Codecs that are networks: adapters over public ones, and our own."""
