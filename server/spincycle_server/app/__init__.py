"""Puts the servers together from their parts, starts them, and ends them in order.

This is the one place that knows all rooms. Each server is a context: entering it starts its
parts from the inside out, leaving it ends them the other way round. First it takes no more
work, then it finishes what is in flight, then it closes what that needed.

A server loads what it needs and no more: a Job Runner has no database.
"""
