"""The transfer schedule: how many tokens each step of a block commits."""


def transfer_counts(masked: int, steps: int) -> list[int]:
    """Split `masked` positions over `steps` steps as evenly as whole numbers allow, larger shares first.

    Masks then fall linearly, as in algorithm 1 of LLaDA-MedV (arXiv 2508.01617). With more steps than
    positions the last steps commit nothing.

    Raises:
        ValueError: if `masked` is negative or `steps` is below 1.
    """
    if masked < 0 or steps < 1:
        raise ValueError(f"masked is {masked} and steps {steps}; masked must be 0 or more, steps 1 or more")
    base, extra = divmod(masked, steps)
    return [base + (step < extra) for step in range(steps)]
