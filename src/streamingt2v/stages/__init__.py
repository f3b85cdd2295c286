"""The three stages, each an iterator of pieces of video: seed, extend, refine."""
