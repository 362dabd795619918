"""Mail addresses, and the meaning of mail servers' answers, for every mail provider and for bounces."""
