"""`--mode=plan`: whether a config fits a TPU slice, before it is rented.

Prints an estimate, then compiles the config's rollout and train step as a run does, with the TPU's
own compiler. That needs no TPU and takes some minutes. Weights are shapes only.

Not planned: the host's memory, and evaluation (it decodes one greedy sample of each of
`evaluation.batch` problems, less than a training step does in all configs here).
"""

from collections.abc import Sequence

import jax

from score_jax.config.settings import Settings
from score_jax.modes.plan import chips, compiled, estimate, shapes, table
from score_jax.modes.plan.chips import Slice
from score_jax.modes.plan.estimate import Term
from score_jax.problem import InputError
from score_jax.runtime import sharding, topology


def plan(settings: Settings, topology_name: str) -> None:
    """Prints the plan of a config for the topology of that name.

    Raises: InputError if it does not fit, with the three largest terms and what to change; if the
      topology, the model's shape or the compiler is not known.
    """
    where = chips.slice_of(topology_name)
    mesh = settings.mesh
    sizes = sharding.axis_sizes(mesh.data, mesh.fsdp, mesh.tensor, where.chips)
    planned = shapes.of_config(
        settings, jax.sharding.AbstractMesh(tuple(sizes.values()), tuple(sizes))
    )
    terms = estimate.terms(planned)
    print(table.first(where, sizes, terms), flush=True)

    here = sharding.make_mesh(mesh.data, mesh.fsdp, mesh.tensor, topology.devices(topology_name))
    print("\nCompiling the update and the rollout; this takes some minutes.", flush=True)
    found = {}
    for program in compiled.programs(shapes.of_config(settings, here)):
        try:
            found[program.name] = compiled.compile_one(program)
        except compiled.NoRoomError as error:
            raise InputError(_does_not_fit(where, terms, program.name, f"{error}")) from error
        print(f"{program.name}: compiled in {found[program.name].seconds:.0f} s", flush=True)
    print(f"\n{table.both(where, terms, found)}\n\n{table.collectives(found)}\n")
    print(table.bounds(where, planned, terms, found))
    needed = table.needed(terms, found)
    for name, size in needed.items():
        if size > where.chip.usable_bytes:
            why = f"{size / chips.GIB:.2f} GiB of {where.chip.usable_bytes / chips.GIB:.2f}"
            raise InputError(_does_not_fit(where, terms, name, f"it needs {why}"))
    most = max(needed.values()) / where.chip.usable_bytes
    spare = "" if most <= 1 - table.SPARE else f", with less than {table.SPARE:.0%} to spare"
    print(f"\nIt fits {where.rented_as}{spare}.")


def _does_not_fit(where: Slice, terms: Sequence[Term], program: str, why: str) -> str:
    largest = "; ".join(
        f"{term.name} {term.bytes / chips.GIB:.2f} GiB ({term.advice})"
        for term in estimate.largest(terms, program)
    )
    return (
        f"the {program} does not fit a chip of {where.rented_as}: {why.rstrip('.')}. Its largest "
        f"terms by estimate, and what makes them smaller: {largest}."
    )
