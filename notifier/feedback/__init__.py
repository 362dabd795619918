"""Provider reports, bounces and recipients' wishes, and what follows from them."""
