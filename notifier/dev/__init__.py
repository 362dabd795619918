"""Runs notifier on one machine: embedded servers, local providers, and the demo."""
