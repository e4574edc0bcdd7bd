"""Text scores of visual question answering, and a judge's line of scores.

Two scores are of closed and of open questions: `closed_hit` (its mean is closed accuracy) and `token_recall`. Each is
defined once, in named variants:

    llava_med         LLaVA-Med v1.0.0's script for one answer file, of the paper's numbers
    llava_med_batch   its script for many files, which counts hits differently
    strict            whole words: what a closed answer says must be yes or no and not both, or begin with another true
                      answer; an open one holds words of it

LLaVA-Med's variants keep that version's quirks, so that numbers compare with published ones:

- 'exact match' is the number of distinct reference words found, over the length of the prediction;
- normalisation removes only the first 32 periods, and a digit,digit pattern anywhere removes punctuation
  instead of spacing it;
- closed answers are looked for as substrings: with "normal", an answer of "no" is found.

The last of these can be gamed. The answer "yes no", which says nothing, is right wherever a script looks for either
(`SAYS_BOTH`: 92 % of VQA-RAD's closed questions), and long answers profit without intent, since "no" stands in
"normal", "not" and "note". `strict` cannot be gamed so: report it beside the others, with how many answers say both or
neither (`said_yes_no`).

`strict` is the phantom benchmark's. Only the standard library is used here; nothing is known of models, questions'
sources or judges.
"""

import math
import re
import sys
from collections import Counter
from collections.abc import Hashable, Sequence
from functools import lru_cache
from typing import NamedTuple

from medv_lab.records import Question

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
    form[:index] + form[index + 1 :]: form
    for form in _CONTRACTED.split()
    for index, letter in enumerate(form)
    if letter == "'"
} | {"somebody'd": "somebodyd"}

LLAVA_MED_VARIANTS = ("llava_med", "llava_med_batch")
VARIANTS = (*LLAVA_MED_VARIANTS, "strict")
SAYS_BOTH = "yes no"  # the control of closed accuracy: this answer to everything
SAYS_BOTH_NAME = "says yes no to everything"  # what tables call it
_TINY = sys.float_info.min  # stands for a precision of zero in BLEU without smoothing


class ScoreLineError(ValueError):
    """A judge's first line that holds no usable pair of scores; the text says what was given and allowed."""


class Overlap(NamedTuple):
    """Word overlap of a prediction with a reference, each in [0, 1]."""

    f1: float
    precision: float
    recall: float


@lru_cache(1 << 14)  # every answer meets every candidate
def normalize(text: str) -> str:
    """Return the normal form of an answer: punctuation, articles, number words and contractions evened out.

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
    """Count the n-grams of the lower-cased words of a text, each joined by single spaces."""
    return Counter(map(" ".join, ngrams(text.lower().split(), n)))


def ngrams(tokens: Sequence[Hashable], n: int) -> list[tuple[Hashable, ...]]:
    """Return all runs of n neighbouring tokens, in order."""
    return [tuple(tokens[start : start + n]) for start in range(len(tokens) - n + 1)]


def exact_match(prediction: str, reference: str) -> float:
    """Return what LLaVA-Med calls exact match: distinct reference words found / words of the prediction, [0, 1]."""
    predicted, true = _words(prediction), _words(reference)
    return len(true.keys() & predicted.keys()) / predicted.total() if predicted else 0.0


def word_overlap(prediction: str, reference: str) -> Overlap:
    """Return F1, precision and token recall of the words; all 0 if no word is shared.

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


def token_recall(prediction: str, reference: str, variant: str = "llava_med") -> float:
    """Return token recall in [0, 1], the paper's score of open questions.

    Args:
        prediction, reference: answers.
        variant: LLaVA-Med's two see words of normal forms, `strict` sees words as they are written, each of the
            reference once.

    Raises:
        ValueError: for an unknown variant.
    """
    _require_variant(variant)
    if variant != "strict":
        return word_overlap(prediction, reference).recall
    said, true = _plain_words(prediction), _plain_words(reference)
    return sum(word in said for word in true) / max(1, len(true))


def bleu(prediction: str, reference: str, weights: Sequence[float] = (0.25, 0.25, 0.25, 0.25)) -> float:
    """Compute sentence BLEU of the normal forms without smoothing, in [0, 1] (Papineni et al. 2002, as NLTK has it).

    `weights` has one per n-gram order, from 1 on; `BLEU_WEIGHTS` holds those in use.
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


def closed_hit(prediction: str, reference: str, variant: str = "llava_med") -> int:
    """Return 1 if a closed answer counts as right, else 0.

    Args:
        prediction, reference: answers.
        variant: `llava_med_batch` looks for the reference as a substring; `llava_med` does so only in answers with
            "yes" or "no" in them; `strict` wants yes or no as a whole word and the other nowhere, and an answer that
            begins with any other reference.

    Raises:
        ValueError: for an unknown variant.
    """
    _require_variant(variant)
    if variant == "strict":
        wanted = _whole_words(reference)
        if wanted in (["yes"], ["no"]):
            return int([said_yes_no(prediction)] == wanted)
        return int(_whole_words(prediction)[: len(wanted)] == wanted)
    said, true = normalize(prediction), normalize(reference)
    is_answer = variant == "llava_med_batch" or "yes" in said or "no" in said
    return int(is_answer and true in said)


def said_yes_no(answer: str) -> str:
    """Return what an answer says in whole words: "yes", "no", "both" or "neither"."""
    said = {"yes", "no"}.intersection(_whole_words(answer))
    return said.pop() if len(said) == 1 else "both" if said else "neither"


def open_hit(prediction: str, reference: str, variant: str, candidates: Sequence[str | int] = ()) -> float:
    """Return 1.0 if an open answer counts as right, else 0.0.

    Args:
        prediction, reference: answers.
        variant: `llava_med` takes the candidate that shares the largest part of its own words with the prediction
            (the first of equals) and compares it with the reference; `llava_med_batch` looks for the reference as a
            substring.
        candidates: the answers that `llava_med` may choose from.

    Raises:
        ValueError: for another variant, or if `llava_med` is given no candidates.
    """
    _require_variant(variant, LLAVA_MED_VARIANTS)
    said, true = normalize(prediction), normalize(reference)
    if variant == "llava_med_batch":
        return float(true in said)
    if not candidates:
        raise ValueError("no candidates were given; llava_med needs the list of possible answers")
    said_words = _words(prediction).keys()
    normal = [normalize(str(candidate)) for candidate in candidates]
    shares = []
    for candidate in normal:
        words = count_ngrams(candidate).keys()
        shares.append(len(words & said_words) / len(words) if words else 0.0)
    return float(normal[shares.index(max(shares))] == normalize(true))


def score_vqa(question: Question, answer: str, variant: str = "llava_med") -> float:
    """Score one answer in [0, 1]: a closed question by its hit, an open one by token recall (Table 2).

    Raises:
        ValueError: for an unknown variant.
    """
    score = closed_hit if question.is_closed else token_recall
    return float(score(answer, question.reference, variant))


def evaluate_vqa(
    questions: Sequence[Question],
    answers: Sequence[str],
    variant: str = "llava_med",
    candidates: Sequence[str | int] = (),
) -> dict[str, float]:
    """Return the table that one of LLaVA-Med's scripts prints, in percent, under its own names.

    Args:
        questions: open and closed ones.
        answers: to the questions, in their order.
        variant: "llava_med", or "llava_med_batch", which adds "recall_closed".
        candidates: as in `open_hit`.

    Returns:
        Means over the open questions of every open score and over the closed ones of the hits ("yes/no accuracy"); a
        mean over no questions is NaN.

    Raises:
        ValueError: for another variant, or another number of answers than of questions.
    """
    _require_variant(variant, LLAVA_MED_VARIANTS)
    pairs = list(zip(questions, answers, strict=True))
    opened = [(answer, question.reference) for question, answer in pairs if not question.is_closed]
    closed = [(answer, question.reference) for question, answer in pairs if question.is_closed]
    overlaps = [word_overlap(*texts) for texts in opened]
    table = {
        "exact match score": [exact_match(*texts) for texts in opened],
        "f1 score": [overlap.f1 for overlap in overlaps],
        "precision": [overlap.precision for overlap in overlaps],
        "recall": [overlap.recall for overlap in overlaps],
    }
    for name, weights in BLEU_WEIGHTS.items():
        table[name.replace("bleu", "bleu_score")] = [bleu(*texts, weights) for texts in opened]
    table["open accuracy"] = [open_hit(*texts, variant, candidates) for texts in opened]
    table["yes/no accuracy"] = [closed_hit(*texts, variant) for texts in closed]
    if variant == "llava_med_batch":
        table["recall_closed"] = [token_recall(*texts, variant) for texts in closed]
    return {name: 100 * (sum(of) / len(of)) if of else math.nan for name, of in table.items()}


def parse_scores(review: str) -> tuple[float, float]:
    """Read (reference's score, candidate's score) from the first line of a judge's review.

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


def _require_variant(variant: str, allowed: Sequence[str] = VARIANTS) -> None:
    if variant not in allowed:
        raise ValueError(f"variant is {variant!r}; allowed are {', '.join(allowed)}")


def _whole_words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def _plain_words(text: str) -> list[str]:
    """Split lower-cased text at spaces, periods and commas."""
    return text.lower().replace(".", " ").replace(",", " ").split()


def _words(text: str) -> Counter[str]:
    """Count words as the overlap scores see them: normalised twice, which removes 32 more periods."""
    return count_ngrams(normalize(normalize(text)))
