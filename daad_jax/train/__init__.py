"""Training: losses, state, train step, input pipeline, health checks and the loop."""
