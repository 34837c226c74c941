"""What operators see of a server from outside: metrics, health and traces."""
