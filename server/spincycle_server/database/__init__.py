"""How the server talks to a database. This room knows no table."""
