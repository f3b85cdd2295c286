"""Adapt diffusers' pipelines to this package: what they can do, how to call and how to steer them."""
