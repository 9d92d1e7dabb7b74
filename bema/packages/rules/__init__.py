"""Lint's rules, one module per part of the document; `bema.packages.lint` is their table."""
