"""Everything that speaks to a broker: transports, queues, publishing, and who published a message."""
