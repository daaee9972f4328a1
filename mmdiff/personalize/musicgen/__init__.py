"""MusicGen fine-tuned on a folder of music: LoRA, DoRA or all weights of its decoder."""
