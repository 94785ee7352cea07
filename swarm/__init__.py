"""How a swarm decides: rounds, pairing, judging, consensus. Pure: time, seeds and keys are arguments."""
