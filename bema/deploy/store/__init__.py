"""Desired state and status, durable."""
