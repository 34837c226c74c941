"""What operators do to a database: migrate it, take over an original one, delete old requests."""
