"""All that a measurement could change in a module, and how it is put back."""
