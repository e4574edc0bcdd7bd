"""What a strategy, a guard and a cache are, and what a pass shows them; a class of your own is written like ours.

    from medv_lab.strategies.base import Candidates, Plan, Strategy

    @dataclass(frozen=True)
    class LeftFirst(Strategy):
        "Commits the leftmost positions of the block first."
        name = "left_first"

        def plan(self, seen: Candidates) -> Plan:
            return Plan(rating=-seen.positions, count=seen.num_transfer)

    ask(model, processor, image, question, GenerationSettings(remasking=LeftFirst()))

From then on "left_first" is a name like "threshold", in settings and manifests and in the explorer.

R rows, N candidates, M committed tokens of the active block, L answer positions, V vocabulary.
"""

from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from difflib import get_close_matches
from sys import float_info
from typing import Any, ClassVar, Protocol, Self

import numpy as np


class SettingsError(ValueError):
    """Settings that no run can have; the text says what was given, what is allowed and what to do."""


def parameter(default: Any = MISSING, least: float = 0, most: float = float_info.max) -> Any:
    """Declare a parameter of a strategy, guard or cache: its default and the range that it is checked against."""
    return field(default=default, metadata={"least": least, "most": most})


@dataclass(frozen=True)
class Choice:
    """One of several ways, with its own parameters; subclasses are known by their `name`.

    Parameters are the fields of a frozen dataclass. Those declared with `parameter` are checked.

    Raises:
        SettingsError: for a parameter of the wrong type or out of its range.
    """

    name: ClassVar[str] = ""
    kind: ClassVar[str] = ""
    known: ClassVar[dict[str, type[Self]]]

    def __init_subclass__(cls, **more: Any) -> None:
        super().__init_subclass__(**more)
        if Choice in cls.__bases__:  # a kind of choice, with names of its own
            cls.known = {}
        elif "name" in vars(cls):
            if not isinstance(cls.name, str) or not cls.name:
                raise SettingsError(f"the name of {cls.__name__} is {cls.name!r}; give a text")
            other = cls.known.get(cls.name)
            if other is not None and (other.__module__, other.__qualname__) != (
                cls.__module__,
                cls.__qualname__,
            ):
                raise SettingsError(
                    f"the {cls.kind} {cls.name!r} is there already ({other.__name__}); choose another name"
                )
            cls.known[cls.name] = cls

    def __post_init__(self) -> None:
        if "name" not in vars(type(self)):  # it would be kept and found under the name of its parent
            kind = type(self).__name__
            raise SettingsError(
                f"{kind} has no name of its own; give the class one, e.g. name = {kind.lower()!r}"
            )
        declared = [name for name, value in vars(type(self)).items() if isinstance(value, Field)]
        if declared:
            raise SettingsError(
                f"{declared[0]} of {type(self).__name__} is no parameter yet; decorate it with @dataclass(frozen=True)"
            )
        for one in fields(self):
            if one.metadata:
                kind = int if one.type in (int, "int") else float
                check_number(one.name, getattr(self, one.name), kind, **one.metadata)

    def __str__(self) -> str:
        """Return the name, and the parameters that are not the defaults, e.g. "threshold (threshold 0.7)"."""
        changed = [
            f"{one.name.replace('_', ' ')} {getattr(self, one.name)}"
            for one in fields(self)
            if getattr(self, one.name) != one.default
        ]
        return f"{self.name} ({', '.join(changed)})" if changed else self.name

    def to_dict(self) -> str | dict[str, Any]:
        """Return the name, or where there are parameters {"name": name, parameter: value, ...}, as JSON holds it."""
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        parameters = {name: one.to_dict() if isinstance(one, Choice) else one for name, one in values.items()}
        return {"name": self.name, **parameters} if parameters else self.name

    @classmethod
    def make(cls, value: Any) -> Self:
        """Return a choice of this kind: from a name (its defaults), from what `to_dict` gave, or as it is.

        Raises:
            SettingsError: for an unknown name (the closest known one is suggested) or parameter, or anything else.
        """
        if isinstance(value, cls):
            return value
        name, given = (value.get("name"), value) if isinstance(value, Mapping) else (value, {})
        if not isinstance(name, str) or name not in cls.known:
            close = get_close_matches(str(name), cls.known, n=1)
            hint = f"did you mean {close[0]}? " if close else ""
            if isinstance(value, type) and issubclass(value, cls):
                hint = f"a class was given where its object is wanted, {value.__name__}(...); "
            raise SettingsError(
                f"{cls.kind} is {value!r}; {hint}allowed are {', '.join(cls.known)}, or an object of a "
                f"{cls.__name__} class"
            )
        found = cls.known[name]
        allowed = [one.name for one in fields(found)]
        unknown = [one for one in given if one not in (*allowed, "name")]
        if unknown:
            raise SettingsError(
                f"{unknown[0]!r} is no parameter of the {cls.kind} {name!r}; it has {', '.join(allowed) or 'none'}"
            )
        required = [
            one.name for one in fields(found) if one.default is MISSING and one.default_factory is MISSING
        ]
        missing = [one for one in required if one not in given]
        if missing:
            raise SettingsError(
                f"the {cls.kind} {name!r} needs {', '.join(missing)}; give an object, {found.__name__}(...)"
            )
        return found(**{one: given[one] for one in given if one != "name"})


class Distributions(Protocol):
    """The predicted distributions at the candidates, on the model's device; each is computed when it is first read."""

    @property
    def entropy(self) -> np.ndarray:
        """Entropy in nats, float64 (N,)."""

    @property
    def margin(self) -> np.ndarray:
        """Distance between the two largest probabilities, float64 (N,)."""

    @property
    def log_probs(self) -> Any:
        """Log-probabilities, a float64 tensor (N, V)."""


class Watched(Protocol):
    """What a pass predicts at every masked position before the row's stop, those of later blocks too, row by row.

    With a cache, which computes no later block for this, at the candidates only.
    """

    rows: np.ndarray
    positions: np.ndarray

    @property
    def log_probs(self) -> Any:
        """Log-probabilities, a float64 tensor (W, V)."""

    @property
    def end_probability(self) -> np.ndarray:
        """Probability of any token that ends an answer, suppressed or not, float64 (W,); only where it grows."""


@dataclass(frozen=True, eq=False)
class Candidates:
    """What a pass predicts at the positions that it may fill, row by row and in order.

    Attributes:
        rows, positions: int (N,); positions count from the first of the answer, negative ones lie in the prompt.
        tokens: int64 (N,), what each would become.
        confidence: float64 (N,), probability of the token (random remasking: the number drawn).
        num_transfer: least number of tokens to transfer in each row, int (R,): the schedule's share; of adaptive
            strategies 1, or with `max_passes` the remaining masks divided by the remaining passes, rounded up.
        scheduled: the schedule's share of this pass, int (R,), 0 when its Z B / L passes are over.
        answer: ids before the pass, int64 (R, L), the mask id where masked.
        block_length: B.
        step: passes of the block before this one.
        distributions: entropy, margin and log-probabilities.
        memory: what the strategy keeps from pass to pass, made by its `new_memory`.
        watched: predictions at all masked positions; only for strategies with `watches_all`.
        end_ids: tokens that end an answer.
    """

    rows: np.ndarray
    positions: np.ndarray
    tokens: np.ndarray
    confidence: np.ndarray
    num_transfer: np.ndarray
    scheduled: np.ndarray
    answer: np.ndarray
    block_length: int
    step: int
    distributions: Distributions
    memory: Any = None
    watched: Watched | None = None
    end_ids: tuple[int, ...] = ()

    def count(self, rows: np.ndarray) -> np.ndarray:
        """Return how often each row is among `rows`, int (R,)."""
        return np.bincount(rows, minlength=len(self.num_transfer))


@dataclass(frozen=True, eq=False)
class Committed:
    """The tokens of the active block that may be masked again, row by row and in order.

    Attributes:
        rows, positions, tokens: int (M,).
        confidence: (M,), of each when it was committed.
        remasked: how often each position was masked again before, int (M,).
        filled_before, filled_after: share of the block that the schedule wants filled before and after the pass.
        is_last: rows whose last pass of the block this is, bool (R,); nothing that is remasked in it is filled again.
        draw: draws uniform numbers, float64 (M,), each row's from its own generator.
        verified: (M,), probability of each token when it is hidden; None for strategies that do not verify.
        predicted: int (M,), what the pass predicts in the place of each token; None for strategies that do not edit.
        predicted_confidence: (M,), its probability; 0 where it is the mask.
    """

    rows: np.ndarray
    positions: np.ndarray
    tokens: np.ndarray
    confidence: np.ndarray
    remasked: np.ndarray
    filled_before: float
    filled_after: float
    is_last: np.ndarray
    draw: Callable[[], np.ndarray]
    verified: np.ndarray | None = None
    predicted: np.ndarray | None = None
    predicted_confidence: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class Plan:
    """What a strategy wants.

    Attributes:
        rating: of each candidate, float (N,); the largest are committed first, equal ones in their order.
        count: how many to commit in each row, int (R,); raised to `Candidates.num_transfer`, so that a pass gets on and
            a block is full after its last.
    """

    rating: np.ndarray
    count: np.ndarray


@dataclass(frozen=True, eq=False)
class Decision:
    """What a pass does.

    Attributes:
        commit: indices of the candidates to commit, ascending.
        remask: indices of the committed tokens to mask again, ascending.
        replace: indices of the committed tokens to replace by what is predicted there, ascending; none of `remask`.
        grow: (position, count) of masks to put before a position; the active block grows with them, unless the pass
            only lengthens the answer.
        is_filling: false for a pass that only lengthens the answer; it counts neither for Z nor for `max_passes`.
    """

    commit: np.ndarray
    remask: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    replace: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    grow: tuple[tuple[int, int], ...] = ()
    is_filling: bool = True


@dataclass(frozen=True)
class Guard(Choice):
    """Says which of the rated candidates a pass commits, e.g. no equal tokens side by side."""

    kind: ClassVar[str] = "guard"

    def choose(self, plan: Plan, seen: Candidates) -> np.ndarray:
        """Return the indices of the candidates to commit, ascending."""
        raise NotImplementedError


@dataclass(frozen=True)
class Strategy(Choice):
    """Says which candidates a pass commits, and which committed tokens it masks again.

    Most strategies define `plan`. Those that revise or lengthen an answer define `decide`.

    Attributes:
        is_adaptive: commits as many as it trusts, at least one; a block ends when it is full. Others are paced: a
            block has Z B / L passes.
        is_revising: masks committed tokens again, and chooses without a guard.
        is_growing: lengthens the answer; one prompt at a time, without guard and cache.
        watches_all: is shown `Candidates.watched`, for which the output layer runs on later blocks too.
        is_random: the confidence of a candidate is a number drawn instead of a probability.
        verifies: every pass also predicts each token of the block as if it were hidden; without a cache.
        edits: every pass also predicts each token of the block as it stands, and may replace it.
        post_passes: how many passes more a full block has at the most; they end when one changes nothing.
    """

    kind: ClassVar[str] = "remasking"
    is_adaptive: ClassVar[bool] = False
    is_revising: ClassVar[bool] = False
    is_growing: ClassVar[bool] = False
    watches_all: ClassVar[bool] = False
    is_random: ClassVar[bool] = False
    verifies: ClassVar[bool] = False
    edits: ClassVar[bool] = False
    post_passes = 0  # no annotation, so that a subclass can make it a parameter of its own

    def plan(self, seen: Candidates) -> Plan:
        """Rate the candidates and say how many of each row are wanted."""
        raise NotImplementedError

    def decide(self, seen: Candidates, committed: Committed, guard: Guard) -> Decision:
        """Return what a pass does; by default the best rated are committed, as far as the guard lets them."""
        plan = self.plan(seen)
        rating, count = np.asarray(plan.rating), np.asarray(plan.count)
        is_count = count.shape == seen.num_transfer.shape and np.issubdtype(count.dtype, np.integer)
        if rating.shape != seen.rows.shape or not is_count or np.isnan(rating).any():
            raise SettingsError(
                f"the plan of {self.name!r} has a rating of the shape {rating.shape} and a count of the shape "
                f"{count.shape} and type {count.dtype}; give a number for each of {len(seen.rows)} candidates, and a "
                f"whole number for each of {len(seen.num_transfer)} rows"
            )
        return Decision(guard.choose(Plan(rating, np.maximum(count, seen.num_transfer)), seen))

    def new_memory(self) -> Any:
        """Return what a run keeps from pass to pass, None by default; `Candidates.memory` has it in every pass."""
        return None

    def longest(self, gen_length: int) -> int:
        """Return how long an answer that starts with L positions may become."""
        return gen_length


@dataclass(frozen=True)
class Cache(Choice):
    """Says which positions a pass computes; keys and values of all others are kept from earlier passes.

    Attributes:
        reads_images: must be told which sequence indices hold images.
    """

    kind: ClassVar[str] = "cache"
    reads_images: ClassVar[bool] = False

    @property
    def is_exact(self) -> bool:
        """True if nothing that is out of date is ever read."""
        return False

    def is_full(self, passes: int) -> bool:
        """Return whether the next pass computes everything, after so many passes of the block; the first does."""
        return passes == 0

    def is_answer_full(self, passes: int) -> bool:
        """Return whether the next pass computes all that stands behind the prompt; by default none does for itself."""
        return False

    def computed(self, is_image: np.ndarray, first: int, last: int) -> np.ndarray:
        """Return the sequence indices that a pass between two full ones computes, bool (R, T).

        Args:
            is_image: sequence indices that hold images, or padding, bool (R, T).
            first, last: the active block is the sequence indices first..last - 1.
        """
        raise NotImplementedError


def best_per_row(rating: np.ndarray, rows: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Return the indices of the `count` best rated candidates of each row, in the order in which they were given.

    Equal ones are taken in that order. A row with fewer candidates gives all of them.

    Args:
        rating: (N,), larger first.
        rows: row of each candidate, (N,), in ascending order.
        count: of each row, (R,).
    """
    order = np.lexsort((-rating, rows))  # row by row, best first
    rank = np.arange(len(rows)) - np.searchsorted(rows, rows)  # within the row
    return np.sort(order[rank < count[rows]])


def check_number(name: str, value: Any, kind: type, least: float = 0, most: float = float_info.max) -> None:
    """Check that a value is a number of a kind (int or float) within its range.

    Raises:
        SettingsError: if it is not.
    """
    allowed_types = int if kind is int else int | float
    is_number = isinstance(value, allowed_types) and not isinstance(value, bool)
    if is_number and least <= value <= most:  # NaN is in no range
        return
    allowed = f"{least} or larger" if most == float_info.max else f"from {least} to {most}"
    raise SettingsError(f"{name} is {value!r}; give a {'whole ' * (kind is int)}number, {allowed}")
