"""Long-video metrics on streamed frames."""
