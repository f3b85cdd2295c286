"""Base networks with CAM and APM joined on."""
