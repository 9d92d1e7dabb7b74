"""Whoever holds the desired state and sees to it that instances equal it."""
