"""Recording attention, and reading the weights of heads, in any net."""
