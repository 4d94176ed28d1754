"""The fixed rows that a diagnostic looks at, and the loader that they come from."""
