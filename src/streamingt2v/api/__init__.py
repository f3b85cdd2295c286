"""The HTTP API on the job service."""
