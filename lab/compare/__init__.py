"""Compare the method with its rivals: protocol, statistics, claims, pages."""
