"""What is said between peers: bytes, typed messages, signatures, limits, receipts, errors. Pure."""
