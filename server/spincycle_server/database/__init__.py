"""How the server talks to a database. This package knows no table."""
