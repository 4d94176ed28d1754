"""Colours that are told apart under every common form of colour blindness.

Okabe and Ito's; their yellow is left out, on white it is hard to see. The grey is as dark as it is
so that, seen without red or green receptors, it is not the green.
"""

__all__ = ["AMBER", "BLUE", "GREEN", "GREY", "INK", "ORANGE", "PURPLE", "SKY"]

BLUE = "#0072B2"
ORANGE = "#D55E00"
GREEN = "#009E73"
PURPLE = "#CC79A7"
SKY = "#56B4E9"
AMBER = "#E69F00"
GREY = "#595959"
INK = "#262626"
