"""Which part of a set a name means: train, validation or test, in every usual spelling."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

PARTS = ("train", "validation", "test")
"""In the order in which a source lists them."""

# The hub's own key words for splits (`datasets.data_files`), what Kaggle's sets are called, and the
# same words in the languages that most sets are named in, without accents.
_WORDS = {
    "train": "train|training|trn|trainval|entrenamiento|entrenar|treino|treinamento|entrainement|"
    "apprentissage|addestramento|allenamento|trening|egitim|pelatihan|latih|обучение|обучающая|"
    "тренировка|训练|訓練|トレーニング|学習|학습|훈련",
    "validation": "val|valid|validation|validate|validating|dev|development|validacion|validacao|"
    "validierung|convalida|convalidazione|walidacja|dogrulama|validasi|валидация|验证|驗證|検証|검증",
    "test": "test|testing|tst|eval|evaluation|holdout|prueba|pruebas|teste|testes|essai|essais|"
    "prova|pengujian|тест|тестовая|测试|測試|テスト|시험|테스트",
}
_FILLERS = (
    "set|data|dataset|split|part|subset|folder|images?|imgs?|pictures?|pics?|photos?|files?|"
    "samples?|examples?|labels?|jpe?gs?|pngs?|csv|the|of|for|s?daten|s?datensatz|bilder|imagenes|"
    "imagens|immagini|datos|dados|donnees|dati|conjunto|de|集|数据集|数据|資料|图片|图像|データ"
)
_PART = {part: re.compile(f"({words})({_FILLERS})*") for part, words in _WORDS.items()}
_FILLER = re.compile(f"({_FILLERS})+")
# What lies beside the images of a set for segmentation or detection.
_COMPANION = re.compile(
    f"({_FILLERS}|masks?|annotations?|ground|truths?|gt|bbox|boxes|box|xmls?|jsons?|thumbnails?|"
    "previews?|segmentations?|all|raw|original|originals)+"
)
# FER-2013's two test parts: by the rules of its contest the public one was there to choose by.
_RENAMED = (
    (re.compile("h[eo]ld[ _-]?out", re.IGNORECASE), " holdout "),
    (re.compile("public[ _-]?test", re.IGNORECASE), " validation "),
    (re.compile("private[ _-]?test", re.IGNORECASE), " test "),
)
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+|[^\W\d_]+")
_ACCENT = re.compile(r"[\u0300-\u036f]")
_UNLABELLED = re.compile("pred|predict|prediction|predictions|unlabel(l?)ed|inference|submission")


@dataclass(frozen=True)
class PartName:
    """What a name such as ``seg_train`` says.

    Parameters
    ----------
    part : {"train", "validation", "test"}
    rest : tuple of str
        The words that are left, ``("seg",)``: parts of one set have them in common.
    """

    part: str
    rest: tuple[str, ...]


def part_of(name: str) -> PartName | None:
    """The part that a folder, a file or a split of this name is, or None.

    >>> part_of("Training_Set"), part_of("seg_test").part, part_of("testimony")
    (PartName(part='train', rest=()), 'test', None)
    """
    found: set[str] = set()
    rest: list[str] = []
    for pattern, plain in _RENAMED:
        name = pattern.sub(plain, name)
    for word in words_of(name):
        part = next((p for p, pattern in _PART.items() if pattern.fullmatch(word)), None)
        if part is not None:
            found.add(part)
        elif not _FILLER.fullmatch(word):
            rest.append(word)
    if found == {"train", "validation"}:  # both together, as VOC's trainval
        found = {"train"}
    return PartName(found.pop(), tuple(rest)) if len(found) == 1 else None


def words_of(name: str) -> list[str]:
    """The words of a name in small letters, parted at signs, digits and capitals; no accents."""
    bare = _ACCENT.sub("", unicodedata.normalize("NFKD", name))
    return [word.casefold() for word in _WORD.findall(unicodedata.normalize("NFC", bare))]


def is_unlabelled(name: str) -> bool:
    """Whether a folder of this name beside the parts holds images without labels."""
    return any(_UNLABELLED.fullmatch(word) for word in words_of(name))


def says_no_class(name: str) -> bool:
    """Whether a folder's name (``images``, ``masks``) says what files are, not of which class.

    >>> says_no_class("Images"), says_no_class("ground_truth"), says_no_class("photo of a cat")
    (True, True, False)
    """
    words = words_of(name)
    return bool(words) and all(map(_COMPANION.fullmatch, words))


def in_order(parts: set[str]) -> tuple[str, ...]:
    """Names of splits, train first and test last, others between them by name."""
    return tuple(sorted(parts, key=lambda p: (p != "train", p == "test", p)))
