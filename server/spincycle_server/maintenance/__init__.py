"""What operators do to a database: migrate it, adopt an original Spin Cycle's, delete old requests."""
