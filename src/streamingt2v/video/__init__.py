"""Frames in, frames out: read images and videos, write video while it is made. Neither holds more than a few frames."""
