"""Clips become batches: manifests, windows, loaders."""
