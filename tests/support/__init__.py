"""What several tests share, such as template folders, raw publishers and running readers."""
