"""Deploy: from a script and a wish to a running instance, and back again after any death."""
