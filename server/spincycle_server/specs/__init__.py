"""Request specs: their model, their parser and their linter."""
