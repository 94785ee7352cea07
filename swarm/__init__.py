"""How a swarm decides. Pure: time, seeds and keys are arguments."""
