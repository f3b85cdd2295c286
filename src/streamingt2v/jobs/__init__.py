"""Video jobs: a queue on disk, worker processes, and the service over both."""
