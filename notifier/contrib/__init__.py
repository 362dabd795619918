"""Producers on web frameworks."""
