#!/bin/sh
# Ends when the file exists.
while [ ! -e "$1" ]; do sleep 0.05; done
