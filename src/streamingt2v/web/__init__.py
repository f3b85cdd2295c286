"""The web demo: a page and the HTTP API on one port."""
