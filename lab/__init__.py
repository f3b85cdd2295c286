"""The laboratory: how the embedded model is made, compared and measured. Not in the wheel."""
