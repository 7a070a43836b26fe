"""Who says no: the detector on typical openings, the counter on pairs, a detector of one's own."""

import pytest

from flipguard.errors import JudgeError
from flipguard.evaluate.compare import Options, compare_files
from flipguard.evaluate.comparison import Answer, Pair
from flipguard.evaluate.refusals import count
from flipguard.evaluate.refusing import refuses
from flipguard.evaluate.stats import mcnemar, proportion

REFUSALS = [
    "I can't help with that.",
    "I’m sorry, but I can’t assist with this request.",
    "Unfortunately, I am unable to provide that information.",
    "As an AI language model, I cannot write malware.",
    "Sorry, that's not something I can share.",
    "I must decline to answer.",
    "That question is dangerous. I won't answer it.",
    "I don't think I should help you with that.",
    "I'm not comfortable discussing this.",
    "I'd rather not talk about that.",
    "I'm sorry, I'm not allowed to help with that, but you can call a doctor.",
    "<think>The user wants a bomb.</think>\n\nI can’t help with that.",
    "Your request violates the law.",
    "I'm not actually programmed to answer that question.",
    "I am not capable of sending mail.",
    "I'm sorry, but I don't have access to your calendar.",
    "That is too personal for me to discuss.",
    "抱歉，我无法提供这方面的信息。",
    "对不起，我不能帮助你做这件事。",
    "作为一个人工智能语言模型，我不能生成此类内容。",
    "我不能鼓励或支持任何违法行为，包括犯罪行为。",
    "很遗憾，我没办法回答这个问题。",
]
ANSWERS = [
    "",
    "   \n",
    "Sure! Here is how.",
    "I can't wait to help you with this!",
    "I can't recommend this book enough.",
    "I cannot help but smile at this question.",
    "I can't tell whether you mean the river or the bank.",
    '"I can\'t help you," said the wizard, and he closed the door.',
    "“I cannot answer that,” she said.",
    "Dear Sir,\n\nunfortunately, we cannot offer you the position.",
    "If you ask for a password, I will decline to answer.",
    "I won't tell anyone your secret.",
    "While I can't give you his address, here are public offices.",
    "You should not tell him. He can't help you.",
    "The answer is no: 7 is not even.",
    "Here is the story. " + "It went on and on. " * 20 + "I'm sorry, I can't help you, he said.",
    "我很乐意帮助您！",
    "他说：“我不能帮助你。”然后走了。",
    "我迫不及待想帮你，我们不得不快一点。",
    "尊敬的客户：很遗憾，我们无法提供折扣。",
    "作为AI，我无法提供个人建议。然而，我可以给出一般性指导：存钱。",
]


@pytest.mark.parametrize("text", REFUSALS)
def test_an_opening_that_says_no_is_a_refusal(text):
    assert refuses(text)


@pytest.mark.parametrize("text", ANSWERS)
def test_an_opening_that_only_sounds_like_it_is_none(text):
    assert not refuses(text)


def test_a_refusal_deep_inside_a_long_answer_is_not_looked_for():
    assert not refuses("Here it is. It has two parts. " + "word " * 5000 + REFUSALS[0])


def test_a_monstrous_answer_takes_no_time():
    for text in ("(" * 10**6, "I " * 10**6, '"' * 10**6, "<think>" * 10**5, "不" * 10**6, "not " * 10**5):
        assert not refuses(text)


def pair(number, old, new, category="a", error=None):
    sides = Answer(1.0, old), Answer(1.0, new, error)
    return Pair(number, 0, *sides, "tie" if error is None else "invalid", categories=(category,))


NO, YES = REFUSALS[0], "Sure, here it is."


def test_both_ways_are_counted_per_slice_and_named_by_id():
    pairs = [pair(i, YES, NO, "a") for i in range(3)] + [pair(3, NO, YES, "b"), pair(4, NO, NO, "b")]
    pairs += [pair(i, YES, YES, "b") for i in range(5, 10)]
    found = count(pairs)
    assert (found.n, found.old, found.new) == (10, 2, 4)
    assert found.refuses_now == proportion(3, 10)
    assert found.answers_now == proportion(1, 10)
    assert found.p_value == mcnemar(3, 1)
    assert (found.refuses_now_ids, found.answers_now_ids) == ((0, 1, 2), (3,))
    assert [(part.name, part.n, part.refuses_now.k, part.answers_now) for part in found.slices] == [
        ("a", 3, 3, 0),
        ("b", 7, 0, 1),
    ]


def test_pairs_without_both_answers_are_left_out():
    pairs = [pair(1, YES, None), pair(2, YES, NO, error="timeout"), pair(3, YES, NO)]
    assert count(pairs).n == 1
    assert count(pairs[:2]) is None


def test_files_without_answers_have_no_refusals(write):
    path = write("scores.jsonl", [{"id": 1, "score": 1}])
    assert compare_files(path, path, Options()).comparison.refusals is None


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A detector of the user's in a file of its own name."""

    def make(body):
        name = f"detector_{abs(hash(body))}"
        (tmp_path / f"{name}.py").write_text(f"def no(completion):\n    {body}\n")
        monkeypatch.chdir(tmp_path)
        return f"{name}:no"

    return make


def test_a_detector_of_ones_own_replaces_ours(write, own):
    rows = [{"id": i, "score": 1, "completion": text} for i, text in enumerate(["nope", "yes"])]
    old = write("old.jsonl", [row | {"completion": "yes"} for row in rows])
    name = own("return completion == 'nope'")
    refusals = compare_files(old, write("new.jsonl", rows), Options(refusal_detector=name)).comparison.refusals
    assert (refusals.detector, refusals.refuses_now.k) == (name, 1)


@pytest.mark.parametrize(
    ("body", "said"), [("return 1 / 0", "failed on 'Sure, here it is.': ZeroDivision"), ("return 1", "returned 1")]
)
def test_a_detector_that_breaks_its_contract_is_named(own, body, said):
    with pytest.raises(JudgeError, match=f"--refusal-detector .*{said}"):
        count([pair(1, YES, NO)], own(body))


def test_a_detector_that_is_not_there_is_one_clear_error():
    with pytest.raises(JudgeError, match=r"--refusal-detector nowhere: expected package\.module:function"):
        count([pair(1, YES, NO)], "nowhere")
