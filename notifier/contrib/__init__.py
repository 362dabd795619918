"""Clients for producers that use a web framework."""
