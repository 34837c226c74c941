"""The TLS of servers: their PEM files, what gRPC and HTTP make of them, and why connections fail."""
