"""The `swarm` command. Starts fast: imports neither trio, libp2p nor torch."""
