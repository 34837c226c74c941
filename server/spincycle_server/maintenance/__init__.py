"""What operators do to a database: migrate it, adopt that of an original Spin Cycle, delete old requests."""
