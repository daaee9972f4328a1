"""The mathematics of diffusion, written for one tensor at a time."""
