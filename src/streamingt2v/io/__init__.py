"""Frames in, frames out: reading pictures and videos, writing video while it is made, and the run folder that survives a kill.

`reader` and `writer` stream: neither holds more than a few frames. `run.RunFolder` commits a chunk at a time.
"""
