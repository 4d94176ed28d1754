"""Looking into any module: capture, probing, losses, state, attention."""
