"""The generated stubs of package spincycle.v1. Made by tools/protos.py, never edited."""
