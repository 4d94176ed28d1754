"""Finding and restoring all state that a measurement could change in a module."""
