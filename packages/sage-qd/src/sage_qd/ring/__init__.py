"""Bytes in a mapped segment: knows no object, codec or queue."""
