"""Task families with known answers, generated without end from a seed."""
