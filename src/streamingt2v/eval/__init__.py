"""Judging videos: metrics on streamed frames, and a judge trained on the world's ground truth."""
