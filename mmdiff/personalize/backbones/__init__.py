"""Pretrained diffusion models behind one protocol, so that a method of personalization is written once."""
