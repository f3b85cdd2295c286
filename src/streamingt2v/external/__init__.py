"""Adapt diffusers' pipelines to this package: what they can do, how they are called, and how they are
steered.
"""
