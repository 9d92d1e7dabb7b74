"""Programs of the peers, each run by an interpreter of their own environment: FOLDER CALLERS SECONDS, a rate on stdout."""
