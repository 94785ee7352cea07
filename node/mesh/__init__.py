"""The way to other peers. The only package that imports libp2p."""
