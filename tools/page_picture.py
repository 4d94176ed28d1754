"""Make a picture of the documentation from figures of runs: one above the other, 256 colours.

``python tools/page_picture.py OUT.png [LABEL=]FIGURE.png ...`` writes the figures below each other,
each with its label above it, and reduces the colours. A single figure needs no label.
"""

import sys
from pathlib import Path

import matplotlib
from PIL import Image, ImageDraw, ImageFont

_INK, _HEIGHT = "#262626", 44
"""Colour of labels, and height of their line in pixels."""
_FONT = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans-Bold.ttf"


def page_picture(out: str, figures: list[str]) -> None:
    """Join figures, each written ``label=path`` or ``path``, and write the picture."""
    parts = [word.rpartition("=") for word in figures]
    images = [Image.open(path).convert("RGB") for _, _, path in parts]
    tops = [_HEIGHT if label else 0 for label, _, _ in parts]
    size = max(i.width for i in images), sum(tops) + sum(i.height for i in images)
    whole = Image.new("RGB", size, "white")
    pen, font, y = ImageDraw.Draw(whole), ImageFont.truetype(str(_FONT), 30), 0
    for (label, _, _), image, top in zip(parts, images, tops, strict=True):
        pen.text((12, y + 6), label, fill=_INK, font=font)
        whole.paste(image, (0, y + top))
        y += top + image.height
    whole.quantize(256, dither=Image.Dither.NONE).save(out, optimize=True)


if __name__ == "__main__":
    page_picture(sys.argv[1], sys.argv[2:])
