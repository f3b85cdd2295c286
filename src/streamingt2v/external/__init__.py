"""Pipelines of diffusers behind this package's own protocols: abilities read from signatures, and calling."""
