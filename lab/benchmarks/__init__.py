"""Measure speed, memory, parity, load and kills."""
