"""Published weights, taken apart and put into this package's networks."""
