"""How large the demo world is and how much of each fault it has."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

from curate.errors import UserError


@dataclass(frozen=True)
class AltShares:
    """Shares of alt texts; what is left are true English captions (``match``)."""

    mismatch: float = 0.12
    boilerplate: float = 0.09
    other_language: float = 0.07
    too_short: float = 0.03
    empty: float = 0.05


@dataclass(frozen=True)
class ImageShares:
    """Shares of pictures; what is left are ordinary ones (``ok``)."""

    duplicate: float = 0.05
    """The same bytes as another picture, under another URL."""
    near_duplicate: float = 0.06
    """Another picture resized, recompressed or slightly cropped."""
    watermark: float = 0.07
    unsafe_standin: float = 0.04
    """A harmless emblem that says "UNSAFE STAND-IN": the demo has no unsafe content of any kind."""


@dataclass(frozen=True)
class HttpShares:
    """Shares of what goes wrong on the way; what is left is served as it should be (``ok``)."""

    not_found: float = 0.03
    forbidden: float = 0.01
    server_error: float = 0.01
    slow: float = 0.003
    """Answers after a pause longer than a client's patience."""
    drip: float = 0.002
    """The body trickles, byte by byte."""
    redirect: float = 0.02
    redirect_loop: float = 0.004
    opt_out: float = 0.025
    """``X-Robots-Tag: noai`` or its relatives, on all pictures of two sites."""
    tiny: float = 0.012
    """Below 32 pixels."""
    oversized: float = 0.004
    """The file's header says 20,000 x 20,000 pixels."""
    extreme_aspect: float = 0.008
    truncated: float = 0.008
    html: float = 0.01
    """A web page served as image/jpeg."""
    empty: float = 0.004
    wrong_type: float = 0.012
    """A good picture whose Content-Type lies."""
    huge: float = 0.002
    """More than 12 MB of body."""
    private_address: float = 0.004
    """The URL's host is a private address: nobody should ask."""


DELIVERED = ("ok", "redirect", "wrong_type")
"""HTTP kinds whose picture arrives whole and of usable size."""


@dataclass(frozen=True)
class WorldConfig:
    """A demo world. The same config gives the same bytes everywhere.

    ``images`` is the number of image URLs; with the defaults 3,000 of them make about 3,000 pairs on
    1,650 pages. ``repeats`` is the share of pairs that stand on further pages as well, ``second_alts``
    the share of URLs that occur with a second alt text. A share above 0 plants at least one case.
    """

    seed: int = 1
    images: int = 3000
    pages_per_image: float = 0.55
    repeats: float = 0.10
    second_alts: float = 0.06
    alt: AltShares = field(default_factory=AltShares)
    image: ImageShares = field(default_factory=ImageShares)
    http: HttpShares = field(default_factory=HttpShares)

    def __post_init__(self) -> None:
        if self.images < 60:
            raise UserError(f"WorldConfig.images is {self.images}: a world needs at least 60 images")
        for name in ("alt", "image", "http"):
            shares = shares_of(getattr(self, name))
            if min(shares.values()) < 0 or sum(shares.values()) >= 0.95:
                raise UserError(
                    f"WorldConfig.{name}: shares must be 0 or more and sum to less than 0.95, "
                    f"got a sum of {sum(shares.values()):.3f}"
                )


def shares_of(value: AltShares | ImageShares | HttpShares) -> dict[str, float]:
    """Name to share, in the order of the fields."""
    return {item.name: float(getattr(value, item.name)) for item in fields(value)}
