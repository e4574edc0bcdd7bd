"""Text scores: downstream VQA and the relative chat score as LLaVA-Med v1.0.0 computes them.

The VQA scores keep that version's quirks, so that numbers compare with published ones:

- 'exact match' is the number of distinct reference words found, over the length of the prediction;
- normalisation removes only the first 32 periods, and a digit,digit pattern anywhere removes punctuation
  instead of spacing it;
- closed answers are looked for as substrings: with "normal", an answer of "no" is found.

`Script.SINGLE` and `Script.BATCH` are its two evaluation scripts, which count hits differently. Only the
standard library is used here; nothing is known of models, questions' sources or judges.
"""

import math
import re
import sys
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from typing import Any

_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_DIGIT_COMMA_DIGIT = re.compile(r"\d,\d")
_PERIOD = re.compile(r"\.(?!\d)")
_PERIODS_REMOVED = 32
_ARTICLES = {"a", "an", "the"}
_NUMBER_WORDS = "zero one two three four five six seven eight nine ten"
_NUMBERS = {word: str(value) for value, word in enumerate(_NUMBER_WORDS.split())} | {"none": "0"}
_CONTRACTED = """
ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't
he'd he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've
mustn't must've needn't not've o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't
shouldn't've somebody'd've somebody'll somebody's someone'd someone'd've someone'll someone's
something'd something'd've something'll that's there'd there'd've there're there's they'd they'd've
they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's what've when's where'd
where's where've who'd who'd've who'll who's who've why'll why're why's won't would've wouldn't
wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're you've
"""
# A form is mended where exactly one of its apostrophes is missing; one entry of the VQA table goes the other way.
_CONTRACTIONS = {
    form[:place] + form[place + 1 :]: form
    for form in _CONTRACTED.split()
    for place, letter in enumerate(form)
    if letter == "'"
} | {"somebody'd": "somebodyd"}

DOMAINS = ("chest_xray", "mri", "histology", "gross", "ct_scan")
_TINY = sys.float_info.min  # stands for a precision of zero in BLEU without smoothing


class ScoreLineError(ValueError):
    """A judge's first line that holds no usable pair of scores; the text says what was given and allowed."""


class Script(Enum):
    """Which of the two scripts counts the hits."""

    SINGLE = "single"
    BATCH = "batch"


@dataclass(frozen=True)
class VqaItem:
    """One question's true answer and a model's answer.

    Raises:
        ValueError: if the answer type is neither "OPEN" nor "CLOSED".
    """

    answer_type: str
    reference: str
    prediction: str

    def __post_init__(self) -> None:
        if self.answer_type not in ("OPEN", "CLOSED"):
            raise ValueError(f"answer_type is {self.answer_type!r}; allowed are 'OPEN' and 'CLOSED'")


@dataclass(frozen=True)
class Overlap:
    """Word overlap of a prediction with a reference, each in [0, 1]."""

    f1: float
    precision: float
    recall: float


@lru_cache(1 << 14)  # every answer meets every candidate
def normalize(text: str) -> str:
    """Normal form of an answer: punctuation, articles, number words and contractions evened out.

    The rules are those of the VQA challenge's evaluation, as LLaVA-Med v1.0.0 applies them.
    """
    spaced = text
    has_grouped_digits = bool(_DIGIT_COMMA_DIGIT.search(text))
    for mark in _PUNCTUATION:
        beside_space = f"{mark} " in text or f" {mark}" in text
        spaced = spaced.replace(mark, "" if beside_space or has_grouped_digits else " ")
    words = _PERIOD.sub("", spaced, count=_PERIODS_REMOVED).lower().split()
    numbered = (_NUMBERS.get(word, word) for word in words)
    return " ".join(_CONTRACTIONS.get(word, word) for word in numbered if word not in _ARTICLES)


def count_ngrams(text: str, n: int = 1) -> Counter[str]:
    """Counts of the n-grams of the lower-cased words of a text, each joined by single spaces."""
    words = text.lower().split()
    return Counter(" ".join(words[start : start + n]) for start in range(len(words) - n + 1))


def ngrams(tokens: Sequence[Hashable], n: int) -> list[tuple[Hashable, ...]]:
    """All runs of n neighbouring tokens, in order.

    Raises:
        ValueError: for n below 1.
    """
    if n < 1:
        raise ValueError(f"n is {n}; give 1 or more")
    return [tuple(tokens[start : start + n]) for start in range(len(tokens) - n + 1)]


def exact_match(prediction: str, reference: str) -> float:
    """What LLaVA-Med calls exact match: distinct reference words found / words of the prediction, [0, 1]."""
    predicted, true = _words(prediction), _words(reference)
    return len(true.keys() & predicted.keys()) / predicted.total() if predicted else 0.0


def word_overlap(prediction: str, reference: str) -> Overlap:
    """F1, precision and token recall of the words; all 0 if no word is shared.

    A shared word counts as often as the prediction says it, so saying it more often than the reference does
    costs nothing.
    """
    predicted, true = _words(prediction), _words(reference)
    hits = sum(count for word, count in predicted.items() if word in true)
    if not hits:
        return Overlap(0.0, 0.0, 0.0)
    missed = sum(count for word, count in true.items() if word not in predicted)
    precision, recall = hits / predicted.total(), hits / (hits + missed)
    return Overlap(2 * precision * recall / (precision + recall), precision, recall)


def token_recall(prediction: str, reference: str) -> float:
    """Token recall in [0, 1], the paper's score of open questions."""
    return word_overlap(prediction, reference).recall


def bleu(prediction: str, reference: str, weights: Sequence[float] = (0.25, 0.25, 0.25, 0.25)) -> float:
    """Sentence BLEU of the normal forms without smoothing, in [0, 1] (Papineni et al. 2002, as NLTK has it).

    Args:
        prediction, reference: answers; BLEU sees the words of their normal forms.
        weights: one weight per n-gram order, from 1 on; `BLEU_WEIGHTS` holds those in use.
    """
    predicted, true = normalize(prediction).split(), normalize(reference).split()
    precisions = []
    for n in range(1, len(weights) + 1):
        grams = Counter(ngrams(predicted, n))
        matched = (grams & Counter(ngrams(true, n))).total()
        if n == 1 and not matched:
            return 0.0
        precisions.append(matched / max(1, grams.total()) or _TINY)
    brevity = 1.0 if len(predicted) > len(true) else math.exp(1 - len(true) / len(predicted))
    logs = (weight * math.log(precision) for weight, precision in zip(weights, precisions, strict=True))
    return brevity * math.exp(math.fsum(logs))


BLEU_WEIGHTS = {
    "bleu": (0.25, 0.25, 0.25, 0.25),
    "bleu_1": (1, 0, 0, 0),
    "bleu_2": (0, 1, 0, 0),
    "bleu_3": (0, 0, 1, 0),
}


def open_hit(prediction: str, reference: str, script: Script, candidates: Sequence[str | int] = ()) -> float:
    """1.0 if an open answer counts as right, else 0.0.

    Args:
        prediction, reference: answers.
        script: SINGLE takes the candidate that shares the largest part of its own words with the prediction
            (the first of equals) and compares it with the reference; BATCH looks for the reference as a
            substring.
        candidates: the answers that SINGLE may choose from.

    Raises:
        ValueError: if SINGLE is given no candidates.
    """
    said, true = normalize(prediction), normalize(reference)
    if script is Script.BATCH:
        return float(true in said)
    if not candidates:
        raise ValueError("no candidates were given; the single script needs the list of possible answers")
    said_words = _words(prediction).keys()
    normal = [normalize(str(candidate)) for candidate in candidates]
    shares = []
    for candidate in normal:
        words = count_ngrams(candidate).keys()
        shares.append(len(words & said_words) / len(words) if words else 0.0)
    return float(normal[shares.index(max(shares))] == normalize(true))


def closed_hit(prediction: str, reference: str, script: Script) -> int:
    """1 if a closed answer counts as right, else 0.

    BATCH looks for the reference as a substring; SINGLE does so only in answers with "yes" or "no" in them.
    """
    said, true = normalize(prediction), normalize(reference)
    is_answer = script is Script.BATCH or "yes" in said or "no" in said
    return int(is_answer and true in said)


def evaluate_vqa(
    items: Sequence[VqaItem], script: Script, candidates: Sequence[str | int] = ()
) -> dict[str, float]:
    """The table that a script prints, in percent, under its own names.

    Args:
        items: open and closed questions, answered.
        script: which script; BATCH adds "recall_closed".
        candidates: as in `open_hit`.

    Returns:
        Means over the open items of every open score and over the closed ones of the hits ("yes/no accuracy"); a
        mean over no items is NaN.
    """
    opened = [item for item in items if item.answer_type == "OPEN"]
    closed = [item for item in items if item.answer_type == "CLOSED"]
    overlaps = [word_overlap(item.prediction, item.reference) for item in opened]
    table = {
        "exact match score": [exact_match(item.prediction, item.reference) for item in opened],
        "f1 score": [overlap.f1 for overlap in overlaps],
        "precision": [overlap.precision for overlap in overlaps],
        "recall": [overlap.recall for overlap in overlaps],
    }
    for name, weights in BLEU_WEIGHTS.items():
        scores = [bleu(item.prediction, item.reference, weights) for item in opened]
        table[name.replace("bleu", "bleu_score")] = scores
    table["open accuracy"] = [
        open_hit(item.prediction, item.reference, script, candidates) for item in opened
    ]
    table["yes/no accuracy"] = [closed_hit(item.prediction, item.reference, script) for item in closed]
    if script is Script.BATCH:
        table["recall_closed"] = [token_recall(item.prediction, item.reference) for item in closed]
    return {name: 100 * _mean(scores) for name, scores in table.items()}


def parse_scores(review: str) -> tuple[float, float]:
    """(reference's score, candidate's score) from the first line of a judge's review.

    Raises:
        ScoreLineError: unless the line is exactly two numbers with one space between them, the first not zero.
    """
    line = review.split("\n")[0]
    parts = line.split(" ")
    try:
        reference, candidate = (float(part) for part in parts)
    except ValueError as error:
        raise ScoreLineError(
            f"the review begins with {line!r}; its first line must be exactly two numbers with one space between them"
        ) from error
    if reference == 0 or not math.isfinite(reference + candidate):
        raise ScoreLineError(
            f"the review gives the scores {line!r}; they must be finite and the reference's not zero"
        )
    return reference, candidate


def relative_chat_scores(reviews: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Relative scores of the visual chatbot benchmark, over all questions, by type and by domain.

    Args:
        reviews: rows with `result` (the judge's text), `type`, and `domain` (name -> bool; the first true one
            of `DOMAINS` counts, "none" if there is none).

    Returns:
        group -> gpt4_score, pred_score (means), pred_relative_score (mean of candidate / reference x 100)
        and data_size.

    Raises:
        ScoreLineError: as `parse_scores`; no row is skipped.
    """
    groups: dict[str, list[tuple[float, float]]] = {"all": []}
    for review in reviews:
        scores = parse_scores(review["result"])
        domain = next((name for name in DOMAINS if review["domain"].get(name)), "none")
        for group in ("all", review["type"], domain):
            groups.setdefault(group, []).append(scores)
    return {
        group: {
            "gpt4_score": _mean([reference for reference, _ in pairs]),
            "pred_score": _mean([candidate for _, candidate in pairs]),
            "pred_relative_score": 100 * _mean([candidate / reference for reference, candidate in pairs]),
            "data_size": len(pairs),
        }
        for group, pairs in groups.items()
        if pairs
    }


def _words(text: str) -> Counter[str]:
    """Word counts as the overlap scores see them: normalised twice, which removes 32 more periods."""
    return count_ngrams(normalize(normalize(text)))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan
