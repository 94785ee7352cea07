"""Where models run. Only :mod:`node.backends.local` imports torch."""
