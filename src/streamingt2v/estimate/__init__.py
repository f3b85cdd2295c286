"""Estimate memory, disk and time before anything is loaded or downloaded."""
