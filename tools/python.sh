#!/bin/sh
# Prints the python3.11 of the PATH that is best for the servers: the first one that was compiled with
# profile-guided optimization, or else the first one. It must be able to make a virtual environment.
directory=$(dirname "$0")
first=
IFS=:
set -f
for folder in $PATH; do
    candidate=$folder/python3.11
    [ -x "$candidate" ] && "$candidate" -c 'import ensurepip, venv' 2>/dev/null || continue
    [ -n "$first" ] || first=$candidate
    if "$candidate" -I "$directory/../server/spincycle_server/python_build.py"; then
        echo "$candidate"
        exit
    fi
done
echo "${first:-python3.11}"
