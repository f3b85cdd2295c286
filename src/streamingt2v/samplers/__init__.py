"""Noise, guidance, denoising and blending: mathematics that takes its randomness as an argument."""
