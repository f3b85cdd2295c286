"""Train, compare and measure the embedded model. Not in the wheel."""
