"""The prompts and correction instructions of the SCoRe paper, word for word, and a few variants.

`PROMPTS[name]` is (prompt format, instruction), as templates.make takes them. The paper does not
say how prompt and problem are joined, or which role the instruction has. Here the problem follows
after "Problem:", and the chat templates make the instruction a user turn.

    math, gsm8k          chat models; the answer as "Final Answer: The final answer is $...$. ..."
    math_boxed           the same with \\boxed{}, for models tuned to it (Qwen)
    math_text, mbpp_text base models under the template "plain", which adds no line breaks itself
    math_fewshot         the same with four worked problems first (our own; the paper has none)
    mbpp                 three worked examples, then the task; ends with [BEGIN]
    humaneval            the signature and docstring alone; humaneval_text for base models
    mbpp_chat            chat models: a program that runs by itself, in one fenced block;
    humaneval_chat       the form in which EvalPlus asks them, in words of our own
    arithmetic           the quickstart's sums; the instruction is one character
    running_total        sums and differences of digits, as they are
    …_selective          later attempts begin with a verdict and may end there (selective.py)

`SELF_REFINE[name]` is (critique, rewrite): the two texts that replace the instruction in the
self-refine baseline. The paper does not print its own; these are ours. They do not say whether
there is an error.

Source: paper, appendix on prompts; all text in MATH, MATH_INSTRUCTION, MBPP and CODE_INSTRUCTION.
The three worked examples of MBPP are its tasks 2, 3 and 4. EvalPlus (Liu et al. 2023,
evalplus/codegen.py) asks chat models for a script in a Markdown code block, with the task in a
fenced block of its own, MBPP's as a docstring; the published figures of chat code models are of
that form. It also begins each answer with a sentence and an open fence.

`SOLUTIONS[name]`: what SFT on a set's solutions learns under a prompt, with {solution} and
{answer}; "{solution}" for others.

`STOPS[name]`: texts that end an attempt, for the forms of base models, which seldom write an end
token. Few-shot forms end where their next part would begin. A program may define several functions,
so a "def" does not end it. None begins with a line break: see stops.py.
"""

from collections.abc import Mapping, Sequence

from score_jax.problem import InputError, nearest
from score_jax.text import prompt_text as own_text
from score_jax.text.stops import Stops

AS_IT_IS = "{problem}"  # the format of a first turn that needs no further text
_NONE: Mapping[str, str] = {}

_FINAL_ANSWER = (
    "At the end of the Solution, when you give your final answer, write it in the form "
    '"Final Answer: The final answer is $answer$. I hope it is correct."'
)
_BOXED_ANSWER = (
    "At the end of the Solution, when you give your final answer, write it within \\boxed{}."
)

MATH = (
    "You are a math expert. When you respond, respond only with the Solution of the final Problem, "
    f"thinking step by step. {_FINAL_ANSWER}"
)
MATH_INSTRUCTION = (
    "There might be an error in the solution above because of lack of understanding of the "
    "question. Please correct the error, if any, and rewrite the solution. Only output the final "
    f"solution! {_FINAL_ANSWER}"
)
CODE_INSTRUCTION = (
    "# There might be an error in the code above because of lack of understanding of the question. "
    "Please correct the error, if any, and rewrite the solution. Only output the final correct "
    "Python program!"
)
MBPP = """\
You are an expert Python programmer, and here is your task: Write a function to find the similar \
elements from the given two tuple lists. Your code should pass these tests:

assert similar_elements((3, 4, 5, 6),(5, 7, 4, 10)) == (4, 5)
assert similar_elements((1, 2, 3, 4),(5, 4, 3, 7)) == (3, 4)
assert similar_elements((11, 12, 14, 13),(17, 15, 14, 13)) == (13, 14)
[BEGIN]
def similar_elements(test_tup1, test_tup2):
  res = tuple(set(test_tup1) & set(test_tup2))
  return (res)
[DONE]

You are an expert Python programmer, and here is your task: Write a python function to identify \
non-prime numbers. Your code should pass these tests:

assert is_not_prime(2) == False
assert is_not_prime(10) == True
assert is_not_prime(35) == True
[BEGIN]
import math
def is_not_prime(n):
    result = False
    for i in range(2,int(math.sqrt(n)) + 1):
        if n % i == 0:
            result = True
    return result
[DONE]

You are an expert Python programmer, and here is your task: Write a function to find the largest \
integers from a given list of numbers using heap queue algorithm. Your code should pass these tests:

assert heap_queue_largest( [25, 35, 22, 85, 14, 65, 75, 22, 58],3)==[85, 75, 65]
assert heap_queue_largest( [25, 35, 22, 85, 14, 65, 75, 22, 58],2)==[85, 75]
assert heap_queue_largest( [25, 35, 22, 85, 14, 65, 75, 22, 58],5)==[85, 75, 65, 58, 35]
[BEGIN]
import heapq as hq
def heap_queue_largest(nums,n):
  largest_nums = hq.nlargest(n, nums)
  return largest_nums
[DONE]
"""
# {problem} is the text, "Your code should pass these tests:", a blank line, and the tests.
_MBPP_TASK = "\nYou are an expert Python programmer, and here is your task: {problem}\n[BEGIN]\n"

_CHAT_TASK = (
    "Solve the task below with a complete Python program: one that runs by itself, with every "
    "import and helper that it uses. Write it in one fenced code block.\n\n```python\n{}\n```\n"
)
CHAT_CODE_INSTRUCTION = (
    "There might be an error in the program above because of lack of understanding of the task. "
    "Please correct the error, if any, and write the complete program again, in one fenced code "
    "block. Only output the final correct Python program!"
)

_MATH_BOXED = MATH.replace(_FINAL_ANSWER, _BOXED_ANSWER)
_MATH_BOXED_INSTRUCTION = MATH_INSTRUCTION.replace(_FINAL_ANSWER, _BOXED_ANSWER)
_PROBLEM = "\n\nProblem:\n{problem}"

_SHOT = (
    "Problem:\n{}\n\nSolution:\n{} Final Answer: The final answer is ${}$. I hope it is correct."
)
MATH_SHOTS = "\n\n".join(
    _SHOT.format(*shot)
    for shot in (
        (
            "A bag holds $24$ marbles, red and blue, and the blue ones are twice as many as the "
            "red ones. How many are blue?",
            "Let $r$ be the number of red marbles. Then $r + 2r = 24$, so $r = 8$, and "
            "$2r = 16$ are blue.",
            "16",
        ),
        (
            "For which $x$ is $\\frac{3x - 1}{2} = \\frac{x}{3} + 1$?",
            "Multiplying by $6$ gives $9x - 3 = 2x + 6$. So $7x = 9$ and $x = \\frac{9}{7}$.",
            "\\frac{9}{7}",
        ),
        (
            "Two fair dice are thrown. What is the probability that the sum is at least $10$?",
            "Of $36$ equally likely throws, $3$ have the sum $10$, $2$ the sum $11$ and $1$ the "
            "sum $12$. That is $6$ of $36$, which is $\\frac{1}{6}$.",
            "\\frac{1}{6}",
        ),
        (
            "A right triangle has a leg of length $4$ and an area of $12$. How long is its "
            "hypotenuse?",
            "The other leg is $\\frac{2 \\cdot 12}{4} = 6$. The hypotenuse is $\\sqrt{4^2 + 6^2} = "
            "\\sqrt{52} = 2\\sqrt{13}$.",
            "2\\sqrt{13}",
        ),
    )
)

_KEEPS, _REVISES = "Verdict: right.", "Verdict: wrong."
_SELECTIVE = (
    f'Is the solution above right? If it is, answer "{_KEEPS}" and write nothing else. If it is '
    f'not, begin with "{_REVISES}" and write the right solution behind it. {_FINAL_ANSWER}'
)

_WORKED = "{{solution}}{}Final Answer: The final answer is ${{answer}}$. I hope it is correct."

PROMPTS: dict[str, tuple[str, str]] = {
    "math": (MATH + _PROBLEM, MATH_INSTRUCTION),
    "gsm8k": (MATH + _PROBLEM, MATH_INSTRUCTION),
    "math_boxed": (_MATH_BOXED + _PROBLEM, _MATH_BOXED_INSTRUCTION),
    "math_text": (
        f"{MATH}{_PROBLEM}\n\nSolution:\n",
        f"\n\n{MATH_INSTRUCTION}\n\nSolution:\n",
    ),
    "math_fewshot": (
        f"{MATH}\n\n{MATH_SHOTS}{_PROBLEM}\n\nSolution:\n",
        f"\n\n{MATH_INSTRUCTION}\n\nSolution:\n",
    ),
    "mbpp": (MBPP + _MBPP_TASK, CODE_INSTRUCTION),
    "mbpp_text": (MBPP + _MBPP_TASK, f"[DONE]\n\n{CODE_INSTRUCTION}\n[BEGIN]\n"),
    "humaneval": ("{problem}", CODE_INSTRUCTION),
    "humaneval_text": ("{problem}", f"[DONE]\n\n{CODE_INSTRUCTION}\n[BEGIN]\n"),  # as mbpp_text's
    "mbpp_chat": (_CHAT_TASK.format('"""\n{problem}\n"""'), CHAT_CODE_INSTRUCTION),
    "humaneval_chat": (_CHAT_TASK.format("{problem}"), CHAT_CODE_INSTRUCTION),
    "arithmetic": ("{problem}", "?"),
    "arithmetic_selective": ("{problem}", "?"),
    "running_total": ("{problem}=", "\nCorrect any error:"),
    "math_selective": (MATH + _PROBLEM, _SELECTIVE),
    "gsm8k_selective": (MATH + _PROBLEM, _SELECTIVE),
}

# How a set's own solution is written where it is learned: as the prompt asks for it.
SOLUTIONS: dict[str, str] = {
    **dict.fromkeys(("math", "gsm8k", "math_selective", "gsm8k_selective"), _WORKED.format("\n")),
    **dict.fromkeys(("math_text", "math_fewshot"), _WORKED.format(" ")),
    "math_boxed": "{solution}\nThe answer is $\\boxed{{answer}}$.",
    **dict.fromkeys(("mbpp", "mbpp_text", "humaneval", "humaneval_text"), "{solution}\n[DONE]"),
    **dict.fromkeys(("mbpp_chat", "humaneval_chat"), "```python\n{solution}\n```"),
}

_SOLUTION_ENDS = Stops(before=("Problem:",), after=("I hope it is correct.",))
STOPS: dict[str, Stops] = {
    "math_text": _SOLUTION_ENDS,
    "math_fewshot": _SOLUTION_ENDS,
    "mbpp_text": Stops(before=("[DONE]", "You are an expert Python", "# There might be an error")),
    "humaneval_text": Stops(before=("[DONE]", "if __name__", "# There might be an error")),
}

# (keeps, revises): how an attempt begins that keeps the answer before it, or revises it.
VERDICTS: dict[str, tuple[str, str]] = {
    "arithmetic_selective": ("=", "+"),
    "math_selective": (_KEEPS, _REVISES),
    "gsm8k_selective": (_KEEPS, _REVISES),
}

_CRITIQUE = (
    "Go through the {what} above step by step. For each step say whether it is right, and if it is "
    "not, what is wrong with it. Then say in one sentence whether the {what} as a whole is right. "
    "Do not write a new one."
)
_REWRITE = (
    "Write the {what} again and use the review above: mend what it found wrong, and keep what it "
    "found right. Only output the final {what}!"
)
_IN_A_BLOCK = "Write it in one fenced code block."
_SOLUTION = (_CRITIQUE.format(what="solution"), _REWRITE.format(what="solution"))
_PROGRAM = (_CRITIQUE.format(what="program"), _REWRITE.format(what="program"))

SELF_REFINE: dict[str, tuple[str, str]] = {
    "math": (_SOLUTION[0], f"{_SOLUTION[1]} {_FINAL_ANSWER}"),
    "gsm8k": (_SOLUTION[0], f"{_SOLUTION[1]} {_FINAL_ANSWER}"),
    "math_boxed": (_SOLUTION[0], f"{_SOLUTION[1]} {_BOXED_ANSWER}"),
    "mbpp": _PROGRAM,
    "humaneval": _PROGRAM,
    "mbpp_chat": (_PROGRAM[0], f"{_PROGRAM[1]} {_IN_A_BLOCK}"),
    "humaneval_chat": (_PROGRAM[0], f"{_PROGRAM[1]} {_IN_A_BLOCK}"),
}


def chosen(
    prompt: str, prompt_text: str, instructions: Sequence[str], fields: Mapping[str, str] = _NONE
) -> tuple[str, list[str]]:
    """The prompt format of a run, and its instruction: one, or one per later attempt.

    Of texts of one's own, data/asked.py fills in the fields: the format is the problem alone, and
    instructions are as they were written.
    fields: config.problems.fields.
    Raises: InputError for an unknown name, a text without a place for the problem, or one that
        shows the right answer."""
    if prompt_text:
        own_text.check_shown(prompt_text, instructions, fields)
        own_text.check(prompt_text, "config.problems.prompt_text")
        return AS_IT_IS, list(instructions)
    if prompt not in PROMPTS:
        raise InputError(
            f"config.problems.prompt={prompt!r} is unknown. {nearest(prompt, PROMPTS)}"
        )
    prompt_format, instruction = PROMPTS[prompt]
    return prompt_format, [instruction]
