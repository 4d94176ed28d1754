"""Colours that people with any common form of colour blindness can tell apart.

The palette is that of Okabe and Ito without their yellow, which is hard to see on white. The grey
is dark, so that people without red or green receptors can tell it from the green.
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
