"""What the author of a diagnostic builds on."""
