"""An HTTP service around an exported file: ``daad-jax serve``."""
