"""What runs notifier on one machine: embedded services, local providers, the demo."""
