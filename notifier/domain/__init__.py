"""Values and pure rules of the field, without I/O: what a recipient, a status, a reason is."""
