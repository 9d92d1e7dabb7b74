"""REACH: HTTP in front of the same Discovery; one listener for deployments, one for the platform's own API."""
