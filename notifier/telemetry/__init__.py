"""What a process reports about itself: its metrics, the server that a monitor reads them from, and its spans."""
