"""What people write beside a picture: true captions in many phrasings, in six languages, and noise."""

from __future__ import annotations

import random

from curate.demo.scene import Group, Scene

LANGUAGES = ("de", "fr", "es", "ru", "ja")
"""The languages of ``translate``, as fastText's lid.176 names them."""

_NAMES: dict[str, tuple[tuple[str, str], ...]] = {
    "ball": (("ball", "balls"), ("toy ball", "toy balls")),
    "star": (("star", "stars"),),
    "heart": (("heart", "hearts"), ("heart shape", "heart shapes")),
    "house": (("house", "houses"), ("cottage", "cottages")),
    "tree": (("tree", "trees"),),
    "fish": (("fish", "fish"),),
    "flower": (("flower", "flowers"), ("blossom", "blossoms")),
    "mug": (("mug", "mugs"), ("coffee cup", "coffee cups")),
    "umbrella": (("umbrella", "umbrellas"), ("parasol", "parasols")),
    "boat": (("boat", "boats"), ("sailing boat", "sailing boats")),
    "mushroom": (("mushroom", "mushrooms"), ("toadstool", "toadstools")),
    "kite": (("kite", "kites"),),
}
_NUMBERS = ("one", "two", "three", "four")
_PATTERNS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    # before the noun, behind the noun
    "striped": (("striped",), ("with stripes", "with broad stripes")),
    "dotted": (("dotted", "spotted", "polka dot"), ("with dots", "with polka dots")),
    "checked": (("checked", "chequered"), ("with a checked pattern", "in a check pattern")),
}
_PLACES: dict[str, tuple[str, ...]] = {
    "meadow": ("on a green meadow", "in a meadow", "on the grass", "on a grassy field under a blue sky"),
    "beach": ("on the beach", "on a sandy beach", "by the sea on the sand", "at the beach"),
    "night sky": ("in the night sky", "against a starry sky", "at night under the stars", "among the stars"),
    "wooden table": ("on a wooden table", "on a wooden board", "on brown wood", "on wooden planks"),
    "brick wall": ("in front of a brick wall", "on a brick wall", "against red bricks"),
    "snow": ("in the snow", "on fresh snow", "in the white snow of winter"),
    "lake": ("on the water", "on a blue lake", "in the waves of a lake"),
    "sunset": ("at sunset", "in the evening light", "against an orange sunset sky"),
    "tablecloth": ("on a red checked tablecloth", "on a picnic blanket", "on a gingham tablecloth"),
    "grey wall": (
        "in front of a grey wall",
        "on a grey background",
        "in a grey room",
        "against a plain grey wall",
    ),
}
_LEADS = (
    "", "", "", "", "", "", "a photo of ", "a picture of ", "photo of ", "picture of ", "an image of ",
    "photograph: ",
    "this photo shows ", "here you see ", "view of ", "a colourful picture of ", "illustration of ",
    "we saw ",
)  # fmt: skip
_TAILS = (
    "",
    "",
    "",
    "",
    "",
    "",
    "",
    ".",
    ", photo",
    " - free photo",
    ", lovely picture",
    " | picture of the week",
    "!",
)
_RELATIONS: dict[str, tuple[str, ...]] = {
    "left of": ("{a} left of {b}", "{a} to the left of {b}", "{a} on the left and {b} on the right"),
    "right of": ("{a} right of {b}", "{a} to the right of {b}", "{b} on the left and {a} on the right"),
    "above": ("{a} above {b}", "{a} over {b}", "{a} at the top and {b} at the bottom"),
    "below": ("{a} below {b}", "{a} under {b}", "{b} at the top and {a} at the bottom"),
}


def phrase_group(group: Group, rng: random.Random, detail: float = 0.75) -> str:
    """For example "two red striped hearts". ``detail`` is the chance that the pattern is told."""
    singular, plural = rng.choice(_NAMES[group.shape])
    before, behind = "", ""
    if group.pattern != "solid" and rng.random() < detail:
        fronts, backs = _PATTERNS[group.pattern]
        if rng.random() < 0.7:
            before = rng.choice(fronts) + " "
        else:
            behind = " " + rng.choice(backs)
    adjectives = f"{group.colour} {before}" if rng.random() < 0.75 else f"{before}{group.colour} "
    noun = singular if group.count == 1 else plural
    body = f"{adjectives}{noun}{behind}"
    if group.count == 1:
        article = "an" if body[0] in "aeiou" else "a"
        return f"{rng.choice((article, article, article, 'one', 'a single'))} {body}"
    if rng.random() < 0.65:
        return f"{_NUMBERS[group.count - 1]} {body}"
    return f"{group.count} {body}"


def caption(scene: Scene, rng: random.Random, *, explicit: float = 0.5) -> str:
    """A true English caption in one of many phrasings.

    ``explicit`` is the chance that a watermark, or the emblem that stands in for unsafe content, is
    mentioned where there is one. What a caption leaves out (a background, a pattern) stays true.
    """
    parts = [phrase_group(group, rng) for group in scene.groups]
    if scene.relation is not None and rng.random() < 0.75:
        core = rng.choice(_RELATIONS[scene.relation]).format(a=parts[0], b=parts[1])
    elif len(parts) == 1:
        core = parts[0]
    else:
        order = rng.sample(parts, len(parts))
        joined = rng.choice((" and ", " with ", " next to ")) if len(parts) == 2 else " and "
        core = f"{', '.join(order[:-1])}{joined}{order[-1]}"
    place = rng.choice(_PLACES[scene.background])
    lead = rng.choice(_LEADS)
    if rng.random() < 0.72:
        core = f"{core} {place}" if lead or rng.random() < 0.7 else f"{place}, {core}"
    if scene.word is not None and rng.random() < 0.7:
        core += rng.choice((f" with a sign that says {scene.word}", f' and a sign "{scene.word}"',
                            f", the sign reads {scene.word}"))  # fmt: skip
    if scene.watermark is not None and rng.random() < explicit:
        core += rng.choice((" with a stock watermark", ", watermarked stock photo",
                            " with a watermark across it",
                            f", {scene.agency} stock photo with watermark"))  # fmt: skip
    text = lead + core + rng.choice(_TAILS)
    if scene.unsafe and rng.random() < explicit:
        text = rng.choice(("unsafe stand-in content: {}", "{}, unsafe stand-in content",
                           "unsafe stand-in, {}",
                           "{} with an unsafe stand-in emblem")).format(text)  # fmt: skip
    style = rng.random()
    if style < 0.55:
        return text[0].upper() + text[1:]
    return text.title().replace("'S", "'s") if style < 0.62 else text


BOILERPLATE = (
    "image", "photo", "logo", "banner", "thumbnail", "picture", "click here to enlarge", "click to enlarge",
    "IMG_{n}.jpg", "DSC0{n}", "image-{n}.png", "untitled", "share on social media", "loading...", "avatar",
    "header image", "placeholder", "product image {n}", "read more", "icon arrow right",
    "author profile picture",
    "gallery image {n}", "screenshot", "advertisement", "default thumbnail",
)  # fmt: skip
SHORT = ("a", "x", "1", "pic", "img", "foto", "new", "#{d}", "{d}", "...", "ok", "top", "ad", "-", "hi")


def boilerplate(rng: random.Random) -> str:
    """Text that stands beside thousands of pictures and describes none of them."""
    return rng.choice(BOILERPLATE).format(n=rng.randint(1000, 9999))


def too_short(rng: random.Random) -> str:
    """One to four characters that say nothing."""
    return rng.choice(SHORT).format(d=rng.randint(1, 99))


# Sentences are built from noun phrases whose colour is itself a noun ("de couleur rouge", "красного
# цвета", "赤色の"): correct in each language without agreement of adjectives.
_FOREIGN_NAMES: dict[str, dict[str, tuple[str, str]]] = {
    "de": {
        "ball": ("ein Ball", "Bälle"), "star": ("ein Stern", "Sterne"), "heart": ("ein Herz", "Herzen"),
        "house": ("ein Haus", "Häuser"), "tree": ("ein Baum", "Bäume"), "fish": ("ein Fisch", "Fische"),
        "flower": ("eine Blume", "Blumen"), "mug": ("eine Tasse", "Tassen"),
        "umbrella": ("ein Regenschirm", "Regenschirme"), "boat": ("ein Segelboot", "Segelboote"),
        "mushroom": ("ein Pilz", "Pilze"), "kite": ("ein Drachen", "Drachen"),
    },
    "fr": {
        "ball": ("un ballon", "ballons"), "star": ("une étoile", "étoiles"), "heart": ("un cœur", "cœurs"),
        "house": ("une maison", "maisons"), "tree": ("un arbre", "arbres"), "fish": ("un poisson",
        "poissons"),
        "flower": ("une fleur", "fleurs"), "mug": ("une tasse", "tasses"),
        "umbrella": ("un parapluie", "parapluies"), "boat": ("un bateau", "bateaux"),
        "mushroom": ("un champignon", "champignons"), "kite": ("un cerf-volant", "cerfs-volants"),
    },
    "es": {
        "ball": ("una pelota", "pelotas"), "star": ("una estrella", "estrellas"),
        "heart": ("un corazón", "corazones"), "house": ("una casa", "casas"), "tree": ("un árbol", "árboles"),
        "fish": ("un pez", "peces"), "flower": ("una flor", "flores"), "mug": ("una taza", "tazas"),
        "umbrella": ("un paraguas", "paraguas"), "boat": ("un barco de vela", "barcos de vela"),
        "mushroom": ("una seta", "setas"), "kite": ("una cometa", "cometas"),
    },
    "ru": {  # after the digits 2, 3 and 4 the noun stands in the genitive singular
        "ball": ("мяч", "мяча"), "star": ("звезда", "звезды"), "heart": ("сердце", "сердца"),
        "house": ("дом", "дома"), "tree": ("дерево", "дерева"), "fish": ("рыба", "рыбы"),
        "flower": ("цветок", "цветка"), "mug": ("кружка", "кружки"), "umbrella": ("зонт", "зонта"),
        "boat": ("лодка", "лодки"), "mushroom": ("гриб", "гриба"), "kite": ("воздушный змей",
        "воздушных змея"),
    },
    "ja": {
        "ball": ("ボール", ""), "star": ("星", ""), "heart": ("ハート", ""), "house": ("家", ""),
        "tree": ("木", ""),
        "fish": ("魚", ""), "flower": ("花", ""), "mug": ("マグカップ", ""), "umbrella": ("傘", ""),
        "boat": ("ヨット", ""), "mushroom": ("きのこ", ""), "kite": ("凧", ""),
    },
}  # fmt: skip
_FOREIGN_COLOURS: dict[str, dict[str, str]] = {
    "de": {"red": "Rot", "orange": "Orange", "yellow": "Gelb", "green": "Grün", "blue": "Blau",
           "purple": "Lila",
           "pink": "Rosa", "brown": "Braun", "black": "Schwarz", "white": "Weiß"},
    "fr": {"red": "rouge", "orange": "orange", "yellow": "jaune", "green": "verte", "blue": "bleue",
           "purple": "violette", "pink": "rose", "brown": "marron", "black": "noire", "white": "blanche"},
    "es": {"red": "rojo", "orange": "naranja", "yellow": "amarillo", "green": "verde", "blue": "azul",
           "purple": "morado", "pink": "rosa", "brown": "marrón", "black": "negro", "white": "blanco"},
    "ru": {"red": "красного", "orange": "оранжевого", "yellow": "жёлтого", "green": "зелёного",
           "blue": "синего",
           "purple": "фиолетового", "pink": "розового", "brown": "коричневого", "black": "чёрного",
           "white": "белого"},
    "ja": {"red": "赤色", "orange": "オレンジ色", "yellow": "黄色", "green": "緑色", "blue": "青色",
           "purple": "紫色", "pink": "ピンク色", "brown": "茶色", "black": "黒色", "white": "白色"},
}  # fmt: skip
_FOREIGN_PLACES: dict[str, dict[str, str]] = {
    "de": {"meadow": "auf einer grünen Wiese", "beach": "am Strand",
           "night sky": "vor dem nächtlichen Sternenhimmel",
           "wooden table": "auf einem Holztisch", "brick wall": "vor einer Ziegelmauer", "snow": "im Schnee",
           "lake": "auf dem Wasser", "sunset": "bei Sonnenuntergang",
           "tablecloth": "auf einer karierten Tischdecke",
           "grey wall": "vor einer grauen Wand"},
    "fr": {"meadow": "dans une prairie verte", "beach": "sur la plage", "night sky": "sous un ciel étoilé",
           "wooden table": "sur une table en bois", "brick wall": "devant un mur de briques",
           "snow": "dans la neige",
           "lake": "sur l'eau du lac", "sunset": "au coucher du soleil",
           "tablecloth": "sur une nappe à carreaux",
           "grey wall": "devant un mur gris"},
    "es": {"meadow": "en un prado verde", "beach": "en la playa", "night sky": "bajo el cielo estrellado",
           "wooden table": "sobre una mesa de madera", "brick wall": "delante de una pared de ladrillo",
           "snow": "en la nieve", "lake": "en el agua del lago", "sunset": "al atardecer",
           "tablecloth": "sobre un mantel de cuadros", "grey wall": "delante de una pared gris"},
    "ru": {"meadow": "на зелёном лугу", "beach": "на песчаном пляже", "night sky": "на фоне звёздного неба",
           "wooden table": "на деревянном столе", "brick wall": "перед кирпичной стеной", "snow": "на снегу",
           "lake": "на воде озера", "sunset": "на закате", "tablecloth": "на клетчатой скатерти",
           "grey wall": "перед серой стеной"},
    "ja": {"meadow": "緑の草原に", "beach": "砂浜に", "night sky": "星空に",
           "wooden table": "木のテーブルの上に",
           "brick wall": "レンガの壁の前に", "snow": "雪の中に", "lake": "湖の水面に",
           "sunset": "夕焼けの中に",
           "tablecloth": "チェックのテーブルクロスの上に", "grey wall": "灰色の壁の前に"},
}  # fmt: skip
_FOREIGN_NUMBERS = {"de": ("", "zwei", "drei", "vier"), "fr": ("", "deux", "trois", "quatre"),
                    "es": ("", "dos", "tres", "cuatro")}  # fmt: skip
_FOREIGN_LEADS: dict[str, tuple[str, ...]] = {
    "de": ("Auf dem Bild: {}", "Das Foto zeigt: {}", "Foto des Tages: {}", "Ein schönes Bild: {}"),
    "fr": ("Sur la photo : {}", "Cette image montre {}", "Voici {}", "Une belle photo avec {}"),
    "es": ("En la foto: {}", "Esta imagen muestra {}", "Aquí se puede ver {}", "Una foto bonita con {}"),
    "ru": ("На фотографии: {}", "На картинке изображено: {}", "Красивый снимок: {}", "Здесь видно: {}"),
    "ja": ("{}ある写真", "{}あります", "{}ある風景の画像"),
}
_FOREIGN_AND = {"de": " und ", "fr": " et ", "es": " y ", "ru": " и "}


def _foreign_group(group: Group, language: str) -> str:
    one, many = _FOREIGN_NAMES[language][group.shape]
    colour = _FOREIGN_COLOURS[language][group.colour]
    if language == "ja":
        return f"{colour}の{one}が{group.count}つ"
    if language == "ru":
        noun = one if group.count == 1 else f"{group.count} {many}"
        return f"{noun} {colour} цвета"
    noun = one if group.count == 1 else f"{_FOREIGN_NUMBERS[language][group.count - 1]} {many}"
    joint = {"de": "in", "fr": "de couleur", "es": "de color"}[language]
    return f"{noun} {joint} {colour}"


def translate(scene: Scene, language: str, rng: random.Random) -> str:
    """A true caption in one of ``LANGUAGES``."""
    groups = [_foreign_group(group, language) for group in scene.groups]
    place = _FOREIGN_PLACES[language][scene.background]
    lead = rng.choice(_FOREIGN_LEADS[language])
    if language == "ja":
        return lead.format(place + "、".join(groups))
    listed = groups[0] if len(groups) == 1 else ", ".join(groups[:-1]) + _FOREIGN_AND[language] + groups[-1]
    return lead.format(f"{listed} {place}")
