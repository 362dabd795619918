"""All that speaks to a broker below the level of messages: transports, and who is on the other end."""
