"""`--mode=plan`: whether a config fits a machine, before it is rented, and what to change if not.

    plan(settings, machine)                  by arithmetic, for any device: a second, no compiler
    plan(settings, machine, compile=True)    the TPU's own compiler then builds the config's rollout
                                             and train step as a run does

Neither needs the device, weights or a network. Not planned: the host's memory.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import jax

from score_jax.config.settings import Settings
from score_jax.modes.plan import advise, bounds, chips, compiled, estimate, shapes, table
from score_jax.modes.plan.chips import Machine
from score_jax.modes.plan.estimate import Term
from score_jax.modes.plan.shapes import Shapes
from score_jax.problem import InputError
from score_jax.runtime import sharding, topology
from score_jax.workdir import heartbeat

Sizes = dict[str, int]


def plan(settings: Settings, where: Machine, *, compile: bool = False) -> None:
    """Prints the plan of a config for a machine.

    Raises: InputError if it does not fit, with the largest terms and what to change; if the model's
      shape or, to compile, the compiler is not known.
    """
    sizes = _sizes(settings, where)
    settings = advise.applied(settings, {f"mesh.{name}": size for name, size in sizes.items()})
    planned = _shapes(settings, where, sizes)
    terms = estimate.terms(planned)
    print(table.first(where, sizes, terms), flush=True)
    if compile:
        _compile(settings, where, planned, terms)
        return
    if where.chip.peak:
        print(f"\n{table.least(where, planned, terms)}")
    usable, needed = where.chip.usable_bytes, estimate.needed(terms)
    worst = max(needed, key=lambda name: needed[name])
    if needed[worst] > usable:
        why = f"it needs {needed[worst] / chips.GIB:.2f} GiB of {usable / chips.GIB:.2f}"
        change = _take_more(where, needed[worst]) + _change(settings, where, planned)
        raise InputError(f"{_does_not_fit(where, terms, worst, why)} {change}")
    print("\nEach of these alone may be, the others as they are:")
    for line in advise.room(planned, usable):
        print(f"  {line}")
    print(f"\nIt fits {where.rented_as}{_spare(needed[worst] / usable)}, by arithmetic.")
    if where.topology:
        print(f"The TPU's compiler checks it with --topology={where.rented_as}, in some minutes.")


def _sizes(settings: Settings, where: Machine) -> Sizes:
    """The config's mesh on this machine, or the nearest one that covers it, which is said."""
    mesh = settings.mesh
    try:
        return sharding.axis_sizes(mesh.data, mesh.fsdp, mesh.tensor, where.chips)
    except InputError:
        near = sharding.nearest_sizes(mesh.fsdp, mesh.tensor, where.chips)
    given = " x ".join(f"{name}={getattr(mesh, name)}" for name in near)
    print(
        f"The config's mesh {given} is not for {where.chips} "
        f"device{'s' if where.chips > 1 else ''}; planned with "
        f"{advise.typed({f'mesh.{name}': size for name, size in near.items()})}\n"
    )
    return near


def _shapes(settings: Settings, where: Machine, sizes: Sizes) -> Shapes:
    mesh = jax.sharding.AbstractMesh(tuple(sizes.values()), tuple(sizes))
    peak = where.chip.peak
    converts = peak is not None and not peak.has_bfloat16
    return shapes.of_config(settings, mesh, platform=where.chip.platform, converts=converts)


def _take_more(where: Machine, needed: float) -> str:
    """That jax may be told to take more of a GPU's memory, where that is enough."""
    if needed > chips.TAKEN_MOST * where.chip.whole_bytes:
        return ""
    share = where.chip.usable_bytes / where.chip.whole_bytes
    return (
        f"jax takes {share:.0%} of this GPU's memory; with the environment variable "
        f"{chips.TAKEN}={chips.TAKEN_MOST} it takes enough. Or else: "
    )


def _change(settings: Settings, where: Machine, planned: Shapes) -> str:
    """What to change so that it fits, or on how many devices it would."""
    usable = where.chip.usable_bytes

    def make(fsdp: int, tensor: int) -> Shapes:
        sizes = {"data": 1, "fsdp": fsdp, "tensor": tensor}
        mesh = jax.sharding.AbstractMesh(tuple(sizes.values()), tuple(sizes))
        changed = advise.applied(settings, {f"mesh.{name}": size for name, size in sizes.items()})
        return planned.on(mesh, changed)

    if where.chips == 1 and (found := advise.fitting(planned, usable)) is not None:
        return f"It fits with {advise.typed(found)}"
    # bfloat16 at least, and float32 beside it where there is none.
    decoding = estimate.parameters(planned.experiment.model) * (6 if planned.converts else 2)
    more = advise.on_more(make, max(2, where.chips), decoding, usable)
    if more is None:
        return (
            "No change that was tried makes it fit, on up to "
            f"{max(where.chips, advise.MOST_DEVICES)} such devices: with all of them it needs "
            f"{advise.least(planned) / chips.GIB:.1f} GiB. Plan for a device with more memory."
        )
    devices, changes = more
    few = "" if devices == where.chips else f"{devices} such devices hold it. "
    return f"{few}It fits with {advise.typed(changes)}"


def _compile(settings: Settings, where: Machine, planned: Shapes, terms: Sequence[Term]) -> None:
    mesh = settings.mesh
    devices = topology.devices(where.topology, where.slices)
    here = sharding.make_mesh(mesh.data, mesh.fsdp, mesh.tensor, devices)
    print("\nCompiling the update and the rollout; this takes some minutes.", flush=True)
    programs = list(compiled.programs(shapes.of_config(settings, here)))
    found = {}
    with ThreadPoolExecutor(len(programs)) as pool, heartbeat.beating(print, "compiling"):
        under_way = {
            program.name: pool.submit(compiled.compile_one, program) for program in programs
        }
        for name, one in under_way.items():
            try:
                found[name] = one.result()
            except compiled.NoRoomError as error:
                raise InputError(_does_not_fit(where, terms, name, f"{error}")) from error
            print(f"{name}: compiled in {found[name].seconds:.0f} s", flush=True)
    print(f"\n{table.both(where, terms, found)}\n\n{table.collectives(found)}\n")
    print(table.least_compiled(where, planned, terms, found))
    print(f"\n{table.scaled(list(bounds.steps(where, planned, found[estimate.UPDATE])))}")
    needed = table.needed(terms, found)
    for name, size in needed.items():
        if size > where.chip.usable_bytes:
            why = f"{size / chips.GIB:.2f} GiB of {where.chip.usable_bytes / chips.GIB:.2f}"
            raise InputError(_does_not_fit(where, terms, name, f"it needs {why}"))
    print(f"\nIt fits {where.rented_as}{_spare(max(needed.values()) / where.chip.usable_bytes)}.")


def _spare(most: float) -> str:
    return "" if most <= 1 - table.SPARE else f", with less than {table.SPARE:.0%} to spare"


def _does_not_fit(where: Machine, terms: Sequence[Term], program: str, why: str) -> str:
    largest = "; ".join(
        f"{term.name} {term.bytes / chips.GIB:.2f} GiB ({term.advice})"
        for term in estimate.largest(terms, program)
    )
    kind = "chip of" if where.topology else "device of" if where.chips > 1 else ""
    return (
        f"the {program} does not fit {f'a {kind} ' if kind else ''}{where.rented_as}: "
        f"{why.rstrip('.')}. Its largest terms by estimate, and what makes them smaller: {largest}."
    )
