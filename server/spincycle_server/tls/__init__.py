"""The TLS of servers: PEM files, the credentials of gRPC and HTTP, and why connections fail."""
