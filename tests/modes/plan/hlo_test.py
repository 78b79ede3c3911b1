"""Costs from a program's text, against what is counted by hand.

SNIPPET has the lines of a program compiled for v5e:2x2 in the forms that matter here, made shorter.
"""

# ruff: noqa: E501 (as the compiler writes them)

import pytest

from score_jax.modes.plan import hlo

SNIPPET = """
HloModule jit_step, is_scheduled=true

%turn_body (p: (u32[], bf16[8,4,16])) -> (u32[], bf16[8,4,16]) {
  %p = (u32[]{:T(128)}, bf16[8,4,16]{2,1,0:T(8,128)(2,1)}) parameter(0)
  %two = u32[]{:T(128)} constant(2)
  %count = u32[]{:T(128)} get-tuple-element(%p), index=0
  %held = bf16[8,4,16]{2,1,0:T(8,128)(2,1)S(1)} get-tuple-element(%p), index=1
  %permute = (bf16[8,4,16]{2,1,0:T(8,128)(2,1)}, bf16[8,4,16]{2,1,0}, u32[]{:S(2)}, u32[]{:S(2)}) collective-permute-start(%held), channel_id=4, source_target_pairs={{0,1},{1,0}}
  %sent = (bf16[8,4,16]{2,1,0:T(8,128)(2,1)}, u32[], token[]) send(%held, %after), channel_id=9, is_host_transfer=true, frontend_attributes={_xla_host_transfer_handler_name="xla_megascale_runtime"}
  %came = bf16[8,4,16]{2,1,0:T(8,128)(2,1)} collective-permute-done(%permute)
  %next = u32[]{:T(128)} add(%count, %two), metadata={op_name="jit(step)/while/body/add"}
  ROOT %t = (u32[]{:T(128)}, bf16[8,4,16]{2,1,0}) tuple(%next, %came)
}

%turn_condition (q: (u32[], bf16[8,4,16])) -> pred[] {
  %six = u32[]{:T(128)} constant(6)
  %q = (u32[]{:T(128)}, bf16[8,4,16]{2,1,0}) parameter(0)
  %at = u32[]{:T(128)} get-tuple-element(%q), index=0
  ROOT %less = pred[]{:T(512)} compare(%at, %six), direction=LT
}

%sums (a: f32[16,32], b: f32[4,8]) -> f32[4,32] {
  %a = f32[16,32]{1,0:T(8,128)} parameter(0)
  %b = f32[4,16]{1,0:T(8,128)} parameter(1)
  ROOT %product = f32[4,32]{1,0:T(8,128)} convolution(%b, %a), dim_labels=bf_io->bf
}

%while_tokens (s: (pred[], f32[16])) -> (pred[], f32[16]) {
  %s = (pred[]{:T(512)}, f32[16]{0:T(128)}) parameter(0)
  %more = pred[]{:T(512)} get-tuple-element(%s), index=0
  %value = f32[16]{0:T(128)} get-tuple-element(%s), index=1
  %summed = f32[16]{0:T(128)} all-reduce(%value), channel_id=1, replica_groups={{0,1}}, to_apply=%plus
  ROOT %u = (pred[]{:T(512)}, f32[16]{0}) tuple(%more, %summed)
}

%data (r: (pred[], f32[16])) -> pred[] {
  %r = (pred[]{:T(512)}, f32[16]{0:T(128)}) parameter(0)
  ROOT %left = pred[]{:T(512)} get-tuple-element(%r), index=0
}

%first_half (h: f32[8]) -> f32[32] {
  %h = f32[8]{0:T(128)} parameter(0)
  ROOT %gather = f32[32]{0:T(128)} all-gather(%h), channel_id=7, dimensions={0}, replica_groups=[1,4]<=[4], frontend_attributes={chain_id="3"}
}

%second_half (i: f32[8]) -> f32[32] {
  %i = f32[8]{0:T(128)} parameter(0)
  ROOT %gather.2 = f32[32]{0:T(128)} all-gather(%i), channel_id=7, dimensions={0}, replica_groups=[1,4]<=[4], frontend_attributes={chain_id="3"}
}

ENTRY %main (x: f32[16,32], y: f32[4,16], z: f32[8]) -> f32[4,32] {
  %x = f32[16,32]{1,0:T(8,128)} parameter(0)
  %y = f32[4,16]{1,0:T(8,128)} parameter(1)
  %z = f32[8]{0:T(128)} parameter(2)
  %start = (u32[]{:T(128)}, bf16[8,4,16]{2,1,0}) tuple(%zero, %w)
  %turns = (u32[]{:T(128)}, bf16[8,4,16]{2,1,0}) while(%start), condition=%turn_condition, body=%turn_body
  %tokens = (pred[]{:T(512)}, f32[16]{0}) while(%begin), condition=%data, body=%while_tokens
  %one = f32[32]{0:T(128)} fusion(%z), kind=kLoop, calls=%first_half
  %other = f32[32]{0:T(128)} fusion(%z), kind=kLoop, calls=%second_half
  %least = f32[8]{0:T(128)} all-reduce(%z), channel_id=1, replica_groups={{0,1}}, to_apply=%minimum
  ROOT %out = f32[4,32]{1,0:T(8,128)} fusion(%x, %y), kind=kOutput, calls=%sums
}
"""


def test_loops_count_as_often_as_they_run_and_a_collective_in_two_fusions_once():
    found = hlo.cost(SNIPPET)
    # 0, 2, 4: three turns, as each takes two steps of the counter.
    # What shard_map asks for are all on channel 1, and still two.
    assert found.count == {"collective-permute": 3, "all-gather": 1, "all-reduce": 2}
    assert found.bytes == {
        "collective-permute": 3 * 8 * 4 * 16 * 2,
        "all-gather": 32 * 4,
        "all-reduce": 16 * 4 + 8 * 4,
    }
    # A ring's: all but its own share of a gather, of a sum that twice, of a permutation all.
    assert found.sent == 3 * 8 * 4 * 16 * 2 + 32 * 4 * 3 / 4 + 2 * (16 + 8) * 4 / 2
    assert found.per_turn == {"all-reduce": 1}  # how often is data
    assert found.between == 3 * 8 * 4 * 16 * 2  # what the other slice gets, in each turn
    assert found.flops == 2 * 4 * 32 * 16


@pytest.mark.parametrize(
    ("line", "shapes", "flops"),
    [
        (  # queries of 4 heads with a batch of 16, both as spatial axes
            "f32[16,4,10,10]{3,2,1,0} convolution(%a, %b), "
            "window={size=16x4 stride=15x3 lhs_dilate=16x4}, dim_labels=0b1f_0o1i->01bf",
            ("bf16[16,10,4,64]", "bf16[16,10,4,64]"),
            2 * 16 * 4 * 10 * 10 * 64,
        ),
        (  # four heads' weights, slid past a width of one
            "bf16[2,10,4,64]{3,2,1,0} convolution(%a, %b), "
            "window={size=1x4 pad=0_0x3_3 rhs_reversal=0x1}, dim_labels=0bf1_1oi0->0b1f",
            ("bf16[2,10,32,1]", "bf16[4,64,32,1]"),
            2 * 2 * 10 * 32 * 4 * 64,
        ),
        (
            "f32[6,7]{1,0} dot(%a, %b), lhs_contracting_dims={1}, rhs_contracting_dims={0}",
            ("f32[6,5]", "f32[5,7]"),
            2 * 6 * 7 * 5,
        ),
    ],
)
def test_a_product_s_flops_are_those_of_the_matrices_it_came_from(line, shapes, flops):
    text = "\n".join(
        [
            "ENTRY %main (a: f32[1], b: f32[1]) -> f32[1] {",
            f"  %a = {shapes[0]}{{0}} parameter(0)",
            f"  %b = {shapes[1]}{{0}} parameter(1)",
            f"  ROOT %c = {line}",
            "}",
        ]
    )
    assert hlo.cost(text).flops == flops
