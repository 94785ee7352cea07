"""Signed logs, one writer each, that every node replicates."""
