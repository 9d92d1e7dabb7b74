"""Anything replaceable: where its implementations are named, chosen and made."""
