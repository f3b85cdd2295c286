"""Recipes that train the embedded model on the procedural world; each is a function of a small frozen
config.
"""
