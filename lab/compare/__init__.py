"""The method beside its rivals: protocol, statistics, claims, pages."""
