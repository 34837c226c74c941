"""The commands of `spinc`: a module for each, whose `command` is the click command."""
