"""The commands of `spincycle`, one module each."""
