"""A world of simulated peers, with known truth, in which rules are compared."""
