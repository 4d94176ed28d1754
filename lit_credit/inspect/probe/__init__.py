"""Taking the fixed rows (the probe) that diagnostics measure on."""
