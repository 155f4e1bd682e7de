"""What lies over a picture: watermarks of made-up agencies, and the emblem that stands for unsafe content."""

from __future__ import annotations

import functools

from PIL import Image, ImageDraw, ImageFont


@functools.lru_cache(maxsize=64)
def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's built-in font: no font file of the system, so the same letters everywhere."""
    return ImageFont.load_default(size)


def _stroked(size: tuple[int, int], text: str, letters: int, alpha: int) -> Image.Image:
    layer = Image.new("RGBA", size, (0, 0, 0, 0))
    draw = ImageDraw.Draw(layer)
    middle = (size[0] / 2, size[1] / 2)
    ink = (255, 255, 255, alpha)
    draw.text(middle, text, fill=ink, font=font(letters), anchor="mm", stroke_width=max(1, letters // 14),
              stroke_fill=(40, 40, 40, alpha * 2 // 3))  # fmt: skip
    return layer


@functools.lru_cache(maxsize=32)
def watermark(style: str, agency: str) -> Image.Image:
    """The overlay of a made-up picture agency, RGBA, 640 pixels square; stretched over a picture."""
    side = 640
    if style == "diagonal":
        layer = _stroked((900, 900), agency, 148, 150)
        draw = ImageDraw.Draw(layer)
        for y in (330, 570):
            draw.line([(0, y), (900, y)], fill=(255, 255, 255, 120), width=8)
        return layer.rotate(35, Image.Resampling.BICUBIC).crop((130, 130, 130 + side, 130 + side))
    if style == "tiled":
        tile = _stroked((240, 92), agency, 42, 165)
        layer = Image.new("RGBA", (960, 960), (0, 0, 0, 0))
        for row, y in enumerate(range(0, 960, 92)):
            for x in range(-120 * (row % 2), 960, 240):
                layer.paste(tile, (x, y))
        return layer.rotate(30, Image.Resampling.BICUBIC).crop((160, 160, 160 + side, 160 + side))
    layer = Image.new("RGBA", (side, side), (0, 0, 0, 0))
    draw = ImageDraw.Draw(layer)
    draw.rectangle((0, 272, side, 376), fill=(30, 30, 34, 130))
    draw.text((side / 2, 324), f"© {agency}", fill=(255, 255, 255, 215), font=font(82), anchor="mm")
    draw.rectangle((0, 604, side, side), fill=(20, 20, 24, 210))
    credit = f"{agency.lower()}.example   image id 4402719"
    draw.text((16, 622), credit, fill=(255, 255, 255, 240), font=font(24), anchor="lm")
    return layer


@functools.lru_cache(maxsize=1)
def unsafe_emblem() -> Image.Image:
    """The harmless emblem that stands in for unsafe content, RGBA, 320 pixels square.

    Magenta and black hazard stripes with the letters "UNSAFE STAND-IN". The demo contains no unsafe
    content of any kind; filters are shown and measured on this emblem instead.
    """
    side = 640
    magenta = (255, 0, 190, 255)
    layer = Image.new("RGBA", (side, side), (0, 0, 0, 255))
    draw = ImageDraw.Draw(layer)
    for x in range(-side, side * 2, 128):
        draw.polygon([(x, 0), (x + 64, 0), (x + 64 - side, side), (x - side, side)], fill=magenta)
    draw.rectangle((64, 200, side - 64, side - 200), fill=(0, 0, 0, 255), outline=magenta, width=14)
    for text, y in (("UNSAFE", 270), ("STAND-IN", 366)):
        draw.text((side / 2, y), text, fill=(255, 255, 255, 255), font=font(98), anchor="mm")
    mask = Image.new("L", (side, side), 0)
    ImageDraw.Draw(mask).regular_polygon((side / 2, side / 2, side / 2 - 4), 8, rotation=22, fill=255)
    layer.putalpha(mask)
    rim = ImageDraw.Draw(layer)
    rim.regular_polygon((side / 2, side / 2, side / 2 - 10), 8, rotation=22, outline=magenta, width=16)
    return layer.resize((320, 320), Image.Resampling.BOX)
