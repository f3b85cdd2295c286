"""HTTP API for video jobs."""
