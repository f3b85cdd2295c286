"""Model folders: find, download, read, place and write their weights."""
