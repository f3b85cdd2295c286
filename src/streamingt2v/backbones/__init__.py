"""Base networks with CAM and APM."""
