"""What several tests share: template folders, raw publishers, running readers."""
