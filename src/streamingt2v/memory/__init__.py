"""Short-term memory (CAM), long-term memory (APM), and the stream of frames that both read."""
