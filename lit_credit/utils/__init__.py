"""Small helpers: names, nested tensors, paths, random states, checks, and private names."""
