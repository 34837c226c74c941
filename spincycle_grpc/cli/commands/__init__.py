"""The commands of `spinc`. Each module has one click command, `command`."""
