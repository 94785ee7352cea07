"""Carries the signed logs of all authors from node to node, and keeps them on disk."""
