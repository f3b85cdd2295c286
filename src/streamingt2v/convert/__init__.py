"""Published weights, converted to model folders."""
