"""Plug-ins that send messages, one folder each. `base` is their interface, `registry` finds them by entry
point."""
