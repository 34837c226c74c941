"""Sends events of requests to the targets of the option `notifications.targets`."""
