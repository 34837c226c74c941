"""Assembles the servers from the other packages, starts them and shuts them down.

Only this package and the commands may import all others. Each server is an async context manager:
entering it starts the parts in the order of their dependencies, and leaving it stops them in reverse. A
server that shuts down first refuses new calls, then finishes the work in flight, and then closes its
connections.

Each server imports only what it needs: a Job Runner loads no database code.
"""
