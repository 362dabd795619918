"""What a process tells about itself: its metrics, and the small server that a monitor reads them from."""
