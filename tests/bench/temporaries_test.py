from score_jax.bench import temporaries

# What a compiled program's text looks like, shortened.
PROGRAM = """HloModule jit__train_step

%fused (param: f32[8,4]) -> f32[8,4] {
  %param = f32[8,4]{1,0} parameter(0)
  ROOT %inside = f32[900,900]{1,0} broadcast(%param), metadata={op_name="jit(f)/hidden"}
}

ENTRY %main (given: f32[1000,1000]) -> f32[8,4] {
  %given = f32[1000,1000]{1,0} parameter(0)
  %logits = f32[64,512]{1,0} dot(%given, %given), metadata={op_name="jit(_train_step)/while/head"}
  %half = bf16[64,512]{1,0} convert(%logits)
  %again = f32[64,512]{1,0} dot(%given, %given), metadata={op_name="jit(_train_step)/while/head"}
  ROOT %out = f32[8,4]{1,0} fusion(%half), kind=kLoop, calls=%fused
}
"""


def test_the_largest_values_are_listed_once_with_their_makers_and_without_arguments():
    assert temporaries.largest(PROGRAM) == [
        {"bytes": 64 * 512 * 4, "shape": "f32[64,512]", "made_by": "head"},
        {"bytes": 64 * 512 * 2, "shape": "bf16[64,512]", "made_by": "convert"},
        {"bytes": 128, "shape": "f32[8,4]", "made_by": "fusion"},
    ]
    assert len(temporaries.largest(PROGRAM, count=1)) == 1
