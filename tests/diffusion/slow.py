"""Every strategy once more: one prompt, one position at a time, in plain Python, written from the definitions."""

import math

import torch

from medv_lab.config import GenerationSettings
from tests.diffusion.toy import MASK, Toy

PACED = ("low_confidence", "entropy", "margin", "position")
END = 13  # the token that the guard "sure_end" takes for an end


def run_slow(toy: Toy, prompt: list[int], settings: GenerationSettings, stop: int | None = None):
    """Denoise one prompt at temperature 0.

    Returns:
        For each pass (commits, remasked, stop): {position: token}, a set of positions, where the answer ends.
    """
    length, block_length = settings.gen_length, settings.block_length
    answer = [MASK] * length
    end = length
    sure, revisions, history, drafted, credits = {}, {}, {}, [0], {}
    generator = torch.Generator().manual_seed(settings.seed)
    passes = []
    for start in range(0, length, block_length):
        block = list(range(start, start + block_length))
        steps = settings.steps // (length // block_length)
        schedule = [block_length // steps + (step < block_length % steps) for step in range(steps)]
        strategy, most = settings.remasking, steps
        if strategy.is_adaptive:
            most = sum(answer[place] == MASK and place < end for place in range(start + block_length))
            if settings.max_passes:
                most = settings.max_passes // (length // block_length)
        edited, after_full = {}, 0
        for step in range(most + strategy.post_passes):
            open_in_block = [place for place in block if answer[place] == MASK]
            has_ended = end < length and MASK not in answer[:end]
            if not open_in_block or has_ended:
                left = [place for place in block if answer[place] != MASK and place < end]
                if after_full == strategy.post_passes or not step or not passes[-1][0] or not left:
                    break
                after_full += 1
            masked = [place for place in range(start + block_length) if answer[place] == MASK and place < end]
            committed = [place for place in block if answer[place] != MASK and place <= end]
            if strategy.edits:
                committed = [place for place in committed if place != end]
            hidden = []
            if settings.remasking.verifies:
                hidden = block
            probs = distributions(toy, prompt, answer, hidden)
            tokens = {place: max(range(MASK + 1), key=lambda t, at=place: probs[at][t]) for place in masked}
            confidence = {place: probs[place][tokens[place]] for place in masked}
            watched = [place for place in range(length) if answer[place] == MASK and place < end]
            for place in watched:
                moved = math.inf
                if place in history:
                    moved = kl(probs[place], history[place][0])
                calm = history[place][1] + 1 if moved < getattr(settings.remasking, "kl_bound", 0.01) else 0
                history[place] = (probs[place], calm)
            for place in list(history):
                if place not in watched:
                    del history[place]
            need = math.ceil(len(masked) / max(most - step, 1))
            if settings.remasking.name in PACED:
                need = schedule[step]
            more = {
                "answer": answer,
                "probs": probs,
                "need": need,
                "history": history,
                "committed": committed,
                "sure": sure,
                "revisions": revisions,
                "generator": generator,
                "schedule": schedule,
                "step": step,
                "is_last": step == most - 1,
                "drafted": drafted,
                "credits": credits,
                "block": block,
                "edited": edited,
            }
            edited.clear()
            commit, remask = RULES[settings.remasking.name](settings, masked, tokens, confidence, **more)
            for place in commit:
                answer[place] = tokens[place]
                sure[place] = confidence[place]
            for place in remask:
                answer[place] = edited.get(place, MASK)
                revisions[place] = revisions.get(place, 0) + 1
                if place == end:
                    end = length
            if stop is not None and stop in answer:
                end = min(end, answer.index(stop))
            passes.append(({place: tokens[place] for place in commit} | edited, set(remask), end))
    return passes


def distributions(toy, prompt, answer, hidden):
    """Probabilities of every answer position; behind ("shadow", place) those of the hidden positions."""
    ids = torch.tensor([prompt + answer + [MASK] * len(hidden)])
    count = len(prompt) + len(answer)
    places = [*range(count), *(len(prompt) + place for place in hidden)]
    total = len(places)
    visible = torch.zeros(1, 1, total, total, dtype=torch.bool)
    for query in range(total):
        for key in range(total):
            if query < count:
                visible[0, 0, query, key] = key < count
            else:
                visible[0, 0, query, key] = key >= count or key != places[query]
    states = toy.backbone(toy.embed_tokens(ids), visible, torch.tensor([places]))
    probs = toy.out(states[0]).softmax(-1).tolist()
    named = {place: probs[len(prompt) + place] for place in range(len(answer))}
    return named | {("shadow", place): probs[count + at] for at, place in enumerate(hidden)}


def kl(p, q):
    return sum(a * (math.log(a) - math.log(b)) for a, b in zip(p, q, strict=True))


def entropy(p):
    return -sum(a * math.log(a) for a in p)


def best(places, rating, count):
    return sorted(places, key=lambda place: -rating(place))[:count]


def paced(rate):
    def rule(settings, masked, tokens, confidence, probs, need, answer, **more):
        def rating(place):
            return rate(place, confidence[place], probs[place], settings)

        if settings.guard.name == "none":
            return best(masked, rating, need), []
        return GUARDED[settings.guard.name](settings, masked, tokens, rating, need, answer), []

    return rule


def penalty(settings, masked, tokens, rating, need, answer):
    answer, taken = list(answer), []
    while len(taken) < min(need, len(masked)):

        def reduced(place):
            doubles = 0
            if place > 0 and answer[place - 1] == tokens[place]:
                doubles += 1
            if place + 1 < len(answer) and answer[place + 1] == tokens[place]:
                doubles += 1
            return rating(place) - settings.guard.penalty * doubles

        place = best([place for place in masked if place not in taken], reduced, 1)[0]
        taken.append(place)
        answer[place] = tokens[place]
    return taken


def spread(settings, masked, tokens, rating, need, answer):
    return apart(masked, rating, need, lambda one, other: abs(one - other) < settings.guard.spacing)


def apart(masked, rating, need, is_near):
    taken, later = [], []
    for place in best(masked, rating, len(masked)):
        if len(taken) < need:
            (later if any(is_near(place, other) for other in taken) else taken).append(place)
    return taken + later[: need - len(taken)]


def sure_end(settings, masked, tokens, rating, need, answer):
    taken = best(masked, rating, need)
    ends = [p for p in masked if tokens[p] == END and rating(p) >= settings.guard.end_threshold]
    return taken + [place for place in ends[:1] if place not in taken]


GUARDED = {"penalty": penalty, "spread": spread, "sure_end": sure_end}


def threshold(settings, masked, tokens, confidence, need, **more):
    above = [place for place in masked if confidence[place] >= settings.remasking.threshold]
    return (above if len(above) >= need else best(masked, confidence.get, need)), []


def factor(settings, masked, tokens, confidence, need, **more):
    ordered = best(masked, confidence.get, len(masked))
    fitting = 0
    for n in range(1, len(ordered) + 1):
        if (n + 1) * (1 - confidence[ordered[n - 1]]) < settings.remasking.factor:
            fitting = n
    if len(ordered) - max(fitting, 1) == 1:
        fitting = len(ordered)
    return ordered[: max(fitting, need)], []


def entropy_bound(settings, masked, tokens, confidence, need, probs, **more):
    ordered = best(masked, lambda place: -entropy(probs[place]), len(masked))
    fitting = 0
    for n in range(1, len(ordered) + 1):
        entropies = [entropy(probs[place]) for place in ordered[:n]]
        if sum(entropies) - max(entropies) <= settings.remasking.entropy_bound:
            fitting = n
    return ordered[: max(fitting, need)], []


def kl_stability(settings, masked, tokens, confidence, need, history, schedule, step, **more):
    stable = [
        place
        for place in masked
        if confidence[place] > settings.remasking.threshold
        and history[place][1] >= settings.remasking.stable_passes
        and step > 0
    ]
    others = [place for place in masked if place not in stable]
    if not stable and step < len(schedule):
        need = max(need, schedule[step])
    return stable + best(others, confidence.get, max(0, need - len(stable))), []


def remdm(
    settings,
    masked,
    tokens,
    confidence,
    need,
    committed,
    generator,
    schedule,
    step,
    block,
    sure,
    is_last,
    **more,
):
    rule = settings.remasking
    draws = torch.rand(len(committed), dtype=torch.float64, generator=generator).tolist() if committed else []
    before, after = sum(schedule[:step]) / len(block), sum(schedule[: step + 1]) / len(block)
    least, is_in_loop = need, True
    if rule.name == "remdm_loop":
        before, after = looped(rule, before), looped(rule, after)
        is_in_loop = before == after == rule.loop_filled
        least = need if is_last else 0
    sigma = min(rule.remask_cap, (1 - after) / before) if before and is_in_loop else 0
    chances = dict.fromkeys(committed, sigma * getattr(rule, "scale", 1))
    if rule.name == "remdm_conf":
        total = sum(math.exp(-sure[place]) for place in committed)
        chances = {place: sigma * math.exp(-sure[place]) / total for place in committed}
    remask = [place for place, draw in zip(committed, draws, strict=True) if draw < chances[place]]
    left_open = round((1 - after) * len(block))
    return best(masked, confidence.get, max(least, len(masked) + len(remask) - left_open)), remask


def looped(rule, share):
    if share < rule.loop_from:
        return share / rule.loop_from * rule.loop_filled
    if share <= rule.loop_to:
        return rule.loop_filled
    return rule.loop_filled + (share - rule.loop_to) / (1 - rule.loop_to) * (1 - rule.loop_filled)


def edit(settings, masked, tokens, confidence, need, committed, answer, probs, edited, **more):
    above = [place for place in masked if confidence[place] > settings.remasking.threshold]
    for place in committed:
        token = max(range(MASK + 1), key=lambda t, at=place: probs[at][t])
        if token not in (answer[place], MASK) and probs[place][token] > settings.remasking.edit_threshold:
            edited[place] = token
    return best(masked, confidence.get, max(need, len(above))), list(edited)


def hierarchical(settings, masked, tokens, confidence, need, **more):
    taken, run = {place for place in masked if confidence[place] >= settings.remasking.threshold}, []
    for place in [*masked, None]:
        if run and (place is None or place != run[-1] + 1):
            top = best(run, confidence.get, 1)[0]
            if confidence[top] >= settings.remasking.low_threshold:
                taken.add(top)
            run = []
        run.append(place)
    others = [place for place in masked if place not in taken]
    return [*taken, *best(others, confidence.get, max(0, need - len(taken)))], []


def credit(settings, masked, tokens, confidence, need, probs, credits, **more):
    rule, raised = settings.remasking, {}
    for place in masked:
        own = [rule.decay * one for one in credits.get(place, [0.0] * (MASK + 1))]
        own[tokens[place]] += confidence[place] ** rule.exponent
        credits[place] = own
        logits = [math.log(p) + rule.weight * math.log(1 + c) for p, c in zip(probs[place], own, strict=True)]
        raised[place] = math.exp(logits[tokens[place]]) / sum(map(math.exp, logits))
    above = [place for place in masked if raised[place] >= rule.threshold]
    return best(masked, raised.get, max(need, len(above))), []


def stochastic(settings, masked, tokens, confidence, generator, schedule, step, block, **more):
    draws = torch.rand(len(masked), dtype=torch.float64, generator=generator).tolist()
    chance = schedule[step] / (len(block) - sum(schedule[:step]))
    return best(masked, confidence.get, sum(draw < chance for draw in draws)), []


def wino(settings, masked, tokens, confidence, need, committed, answer, probs, is_last, drafted, **more):
    above = [place for place in masked if confidence[place] > settings.remasking.threshold]
    most = min(max(int(0.7 * len(masked)), 5), 20)
    drafts = best(masked, confidence.get, max(min(len(above), most), need))
    shadow = {place: probs["shadow", place][answer[place]] for place in committed}
    doubtful = [place for place in committed if shadow[place] < settings.remasking.verify_threshold]
    worst = best(doubtful, lambda place: -shadow[place], max(drafted[0] - 1, 0))
    drafted[0] = len(drafts)
    return drafts, [] if is_last or len(drafts) == 1 else worst


RULES = {
    "low_confidence": paced(lambda place, sure, p, settings: sure),
    "entropy": paced(lambda place, sure, p, settings: -entropy(p)),
    "margin": paced(lambda place, sure, p, settings: sorted(p)[-1] - sorted(p)[-2]),
    "position": paced(lambda place, sure, p, settings: sure * math.exp(-settings.remasking.decay * place)),
    "threshold": threshold,
    "factor": factor,
    "entropy_bound": entropy_bound,
    "kl_stability": kl_stability,
    "remdm": remdm,
    "remdm_rescale": remdm,
    "remdm_conf": remdm,
    "remdm_loop": remdm,
    "edit": edit,
    "hierarchical": hierarchical,
    "credit": credit,
    "stochastic": stochastic,
    "wino": wino,
}


def run_slow_growing(
    toy: Toy, prompt: list[int], settings: GenerationSettings, ends: set[int], stop: int | None
):
    """An answer that grows, at temperature 0.

    Returns:
        For each pass (commits, grown, answer after it): {position: token}, [(position, count)], ids.
    """
    answer, passes, filling, first = [MASK] * settings.gen_length, [], False, 0
    growth, longest = settings.remasking.growth, settings.remasking.max_length
    last = left = settings.block_length
    while first < len(answer):
        if MASK not in answer[first:last] or not left:
            first, last = last, min(last + settings.block_length, len(answer))
            left = answer[:last].count(MASK)
            continue
        stop_at = answer.index(stop) if stop in answer else len(answer)
        if stop_at < len(answer) and MASK not in answer[:stop_at]:
            break
        probs = distributions(toy, prompt, answer, [])
        tail = []
        for place in range(max(0, len(answer) - settings.remasking.end_window), len(answer)):
            if answer[place] == MASK and place < stop_at:
                tail.append(sum(probs[place][token] for token in ends))
            else:
                tail.append(float(answer[place] in ends))
        ending = sum(tail) / settings.remasking.end_window
        if not filling and ending < settings.remasking.end_threshold and len(answer) < longest:
            more = min(growth, longest - len(answer))
            passes.append(({}, [(len(answer), more)], answer := answer + [MASK] * more))
            continue
        filling, left = True, left - 1
        masked = [place for place in range(min(stop_at, last)) if answer[place] == MASK]
        tokens = {place: max(range(MASK + 1), key=lambda t, at=place: probs[at][t]) for place in masked}
        sure = {place: probs[place][tokens[place]] for place in masked}
        above = [place for place in masked if sure[place] > settings.remasking.threshold]
        commit = above or best(masked, sure.get, 1)
        answer = [tokens[place] if place in commit else token for place, token in enumerate(answer)]
        unsure = [
            place
            for place in masked
            if place not in commit and sure[place] < settings.remasking.unsure_threshold
        ]
        grown = []
        if (
            unsure
            and stop not in answer
            and ending < settings.remasking.expand_threshold
            and len(answer) < longest
        ):
            place, more = min(unsure, key=sure.get), min(growth - 1, longest - len(answer))
            grown = [(place + 1, more)]
            answer, last = answer[: place + 1] + [MASK] * more + answer[place + 1 :], last + more
            left += more
        passes.append(({place: tokens[place] for place in commit}, grown, answer))
    return passes
