"""The tables of a plan: the estimate, then the compiled programs."""

from collections.abc import Mapping, Sequence

from score_jax.modes.plan import bounds, estimate
from score_jax.modes.plan.bounds import Step
from score_jax.modes.plan.chips import GIB, Machine
from score_jax.modes.plan.compiled import Compiled
from score_jax.modes.plan.estimate import PROGRAMS as ALL
from score_jax.modes.plan.estimate import ROLLOUT, STAYS, UPDATE, Term
from score_jax.modes.plan.shapes import Shapes

SPARE = 0.1  # of a chip's memory; the last line says when a plan has less
PROGRAMS = (ROLLOUT, UPDATE)  # that are compiled


def first(where: Machine, mesh: Mapping[str, int], terms: Sequence[Term]) -> str:
    """The estimate."""
    sizes = " x ".join(f"{name}={size}" for name, size in mesh.items())
    usable, unit = where.chip.usable_bytes, "chip" if where.topology else "device"
    kind = f" ({where.topology})" if where.topology else ""
    many = f"{where.chips} {unit}s" if where.chips > 1 else f"1 {unit}"
    rows = [f"{where.rented_as}{kind}: {many}, mesh {sizes}", ""]
    rows += [f"{f'by arithmetic, GiB on each {unit}':34}" + "".join(f"{name:>12}" for name in ALL)]
    for name in dict.fromkeys(term.name for term in terms):
        of_name = {term.when: term.bytes for term in terms if term.name == name}
        values = [of_name.get(STAYS) or of_name.get(program) for program in ALL]
        rows.append(_row(name, values, 12))
    needed = estimate.needed(terms)
    rows.append(_row("sum", [needed[program] for program in ALL], 12))
    rows.append(_shares([needed[program] / usable for program in ALL], usable, 12))
    return "\n".join(rows)


def least(where: Machine, shapes: Shapes, terms: Sequence[Term]) -> str:
    """The least time of a step whose attempts all reach their limit, without communication."""
    compute, flops = bounds.compute(where, shapes)
    rollout, told = bounds.rollout(where, shapes, terms)
    peak = where.chip.peak
    assert peak
    s = shapes.experiment.settings.model
    slow = ""
    if s.dtype == "float32" or not peak.has_bfloat16:
        slow = ", in float32" + ("" if peak.has_bfloat16 else " (this device has no bfloat16)")
    return "\n".join(
        [
            "least time of a step of full rows, from the device's peaks, without communication",
            f"  update    {_seconds(compute)} s: {flops:.2e} FLOPs on each device{slow}",
            f"  rollout   {_seconds(rollout)} s: {told}",
            f"  step      {_seconds(compute + rollout)} s, without grading",
        ]
    )


def both(where: Machine, terms: Sequence[Term], found: Mapping[str, Compiled]) -> str:
    """What the compiler reports about both programs; the cache is a line of its own."""
    usable = where.chip.usable_bytes
    stays = [term for term in terms if term.when == STAYS]
    cache = sum(term.bytes for term in terms if (term.name, term.when) == ("cache", ROLLOUT))
    rows = [f"{'compiled, GiB on each chip':34}{ROLLOUT:>9}{UPDATE:>9}"]
    rows += [_row(term.name, [term.bytes] * 2) for term in stays]
    rows += [
        _row("decode weights", [found[ROLLOUT].weights, None]),
        _row("cache", [cache, None]),
        _row(
            "other temporaries",
            [found[ROLLOUT].temporaries - cache, found[UPDATE].temporaries],
        ),
        _row("prompts and episodes", [found[program].others for program in PROGRAMS]),
        _row("code of both", [_code(found)] * 2),
        _row("sum", [needed(terms, found)[program] for program in PROGRAMS]),
        _shares([needed(terms, found)[program] / usable for program in PROGRAMS], usable),
    ]
    return "\n".join(rows)


def needed(terms: Sequence[Term], found: Mapping[str, Compiled]) -> dict[str, int]:
    """Bytes on one chip while each program runs, with what stays there between steps."""
    stays = sum(term.bytes for term in terms if term.when == STAYS)
    return {
        program: stays + one.weights + one.temporaries + one.others + _code(found)
        for program, one in found.items()
    }


def collectives(found: Mapping[str, Compiled]) -> str:
    """Collectives by program and kind: count, bytes, and how many are in data-dependent loops."""
    rows = [f"{'collectives on each chip':34}{'count':>9}{'GiB':>9}"]
    for program, one in found.items():
        for kind, count in sorted(one.cost.count.items()):
            inner = one.cost.per_turn.get(kind, 0)
            note = f"   {inner:.0f} in data-dependent loops, counted once" if inner else ""
            rows.append(
                f"{program + ': ' + kind:34}{count:>9.0f}{one.cost.bytes[kind] / GIB:>9.2f}{note}"
            )
        if not one.cost.count:
            rows.append(f"{program + ': none':34}")
        if one.cost.between:
            rows.append(f"{program + ': between slices':34}{'':>9}{one.cost.between / GIB:>9.2f}")
    return "\n".join(rows)


def least_compiled(
    where: Machine, shapes: Shapes, terms: Sequence[Term], found: Mapping[str, Compiled]
) -> str:
    """The least time of a step whose attempts all reach their limit, from the chip's peaks."""
    chip, sent = where.chip, found[UPDATE].cost.sent
    compute, flops = bounds.compute(where, shapes)
    rollout, told = bounds.rollout(where, shapes, terms)
    send = sent / chip.ici_bytes_per_sec
    exchange, exchanged = bounds.exchange(where, found[UPDATE].cost.between)
    update = max(compute, send, exchange)
    of_slices = ""
    if where.slices > 1:
        took = f"{exchange:.1f} s" if exchange else "a time that is not known"
        of_slices = f", {exchanged / 1e9:.2f} GB between slices {took}"
    return "\n".join(
        [
            "least time of a step of full rows, from the chip's peaks",
            f"  update    {update:8.1f} s: {flops:.2e} FLOPs a chip take {compute:.1f} "
            f"s, {sent / 1e9:.0f} GB over ICI {send:.1f} s{of_slices}",
            f"  rollout   {rollout:8.1f} s: {told}",
            f"  step      {update + rollout:8.1f} s, without grading",
            f"FLOPs a chip of the compiled update: {found[UPDATE].cost.flops:.2e}, one turn of the "
            "loops over the vocabulary; the reference's pass is a program of its own, not compiled "
            "here",
        ]
    )


def scaled(steps: Sequence[Step]) -> str:
    """The same step on more or fewer chips, and what a thousand of them cost."""
    head = (
        "the same step on other numbers of chips, on paper: arithmetic, what the compiled update "
        "sends, one slice\nup to this plan's and such slices beyond it, and an update sends while "
        "it computes"
    )
    names = ("chips", "slices", "data", "fsdp", "tensor")
    times = ("compute", "ICI", "network", "rollout", "step")
    rows = [
        "".join(f"{name:>8}" for name in names)
        + "".join(f"{f'{name}, s':>12}" for name in times)
        + f"{'chip-hours of 1,000':>21}"
    ]
    for step in steps:
        sizes = (step.where.chips, step.where.slices, *step.mesh.values())
        seconds = (step.compute, step.send, step.exchange, step.rollout, step.seconds)
        told = [_seconds(one) for one in seconds]
        if step.where.slices > 1 and not step.where.chip.network_bytes_per_sec:
            told[2] = "not known"
        cost = 1000 * step.seconds * step.where.chips / 3600
        rows.append(
            "".join(f"{size:>8}" for size in sizes)
            + "".join(f"{one:>12}" for one in told)
            + f"{cost:>21,.0f}"
            + ("" if step.fits else "  does not fit")
        )
    return "\n".join([head, *rows])


def _seconds(value: float) -> str:
    return f"{value:8.1f}" if value >= 1 else f"{value:8.2g}"


def _row(name: str, values, width: int = 9) -> str:
    return f"{name:34}" + "".join(
        f"{'-':>{width}}" if value is None else f"{value / GIB:>{width}.2f}" for value in values
    )


def _shares(shares: Sequence[float], usable: float, width: int = 9) -> str:
    name = f"share of {usable / GIB:.2f} GiB"
    return f"{name:34}" + "".join(f"{share:>{width}.0%}" for share in shares)


def _code(found: Mapping[str, Compiled]) -> int:
    return sum(one.code for one in found.values())
