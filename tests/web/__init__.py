"""The web page: its files, its sessions, and which calls of browsers are refused."""
