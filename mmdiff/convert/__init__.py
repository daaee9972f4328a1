"""Foreign checkpoints into model folders, and back."""
