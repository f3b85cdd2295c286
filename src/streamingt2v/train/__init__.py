"""Recipes that train the memories and distil a model; each is a function of a small frozen config."""
