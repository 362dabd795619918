"""Migrations of the table of orders."""
