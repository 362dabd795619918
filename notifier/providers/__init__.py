"""Plug-ins that send, one folder each. `base` is their interface, `registry` finds them by entry point."""
