"""What comes back from outside: provider reports, bounces and recipients' wishes, and what follows from them."""
