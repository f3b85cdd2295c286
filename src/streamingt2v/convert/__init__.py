"""Convert published weights to model folders."""
