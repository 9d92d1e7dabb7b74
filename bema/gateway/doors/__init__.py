"""Endpoints of deployed services in the protocols of others."""
