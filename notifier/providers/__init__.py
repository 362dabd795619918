"""Plug-ins that send. One file each; `base` is the seam, `registry` finds them by entry point."""
