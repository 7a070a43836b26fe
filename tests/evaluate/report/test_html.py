from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from flipguard.evaluate.comparison import Answer, Net, Pair
from flipguard.evaluate.health import Health
from flipguard.evaluate.pairs import Pairs
from flipguard.evaluate.report import html
from flipguard.evaluate.report.flips import worst_first
from flipguard.evaluate.report.text import clean

TAGS = set(
    re.findall(
        r"\w+",
        "html head meta title link style body a header main footer div p span bdi b h1 h2 h3 h4 dl dt dd section "
        "figure figcaption ul li table caption thead tbody tr th td form label select option input output mark details "
        "summary code pre script svg desc rect line text circle path polygon g clippath",
    )
)
ADDRESSES = re.compile(r"#[\w-]+|data:,")


class Reader(HTMLParser):
    """What a browser would find: elements, attributes, text outside of style and script."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.attributes, self.texts, self.code = [], [], [], {"script": [], "style": []}
        self._inside = None
        self.feed(page)
        self.close()
        self.text = "\n".join(self.texts)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *attribute) for attribute in attrs]
        self._inside = tag if tag in self.code else None

    def handle_endtag(self, tag):  # noqa: ARG002 - the parser's signature
        self._inside = None

    def handle_data(self, data):
        (self.code[self._inside] if self._inside else self.texts).append(data)

    def handle_comment(self, data):
        raise AssertionError(data)

    def values(self, name):
        return [value for _, key, value in self.attributes if key == name]


@pytest.fixture(scope="module")
def scored_page(make_scored, make_comparison):
    pairs = make_scored(200)
    return Reader(html.render(make_comparison(pairs), pairs))


def test_hostile_text_is_nothing_but_text(hostile_example, hostile_texts):
    page = Reader(html.render(*hostile_example))
    assert set(page.tags) <= TAGS
    assert len(page.code["script"]) == 1
    assert len(page.code["style"]) == 1
    assert not [name for _, name, _ in page.attributes if name.startswith("on") or name in {"style", "src", "srcdoc"}]
    assert all(ADDRESSES.fullmatch(address) for address in page.values("href"))
    joined = re.sub(r"\s+", " ", "".join(page.texts))
    for text in hostile_texts:
        assert re.sub(r"\s+", " ", clean(text)) in joined


def test_every_element_that_is_opened_is_closed(hostile_example):
    page = html.render(*hostile_example)
    for tag in ("details", "div", "section", "table", "svg", "p", "span", "bdi", "code", "a", "ul", "li"):
        assert len(re.findall(rf"<{tag}[ >]", page)) == page.count(f"</{tag}>"), tag


def test_the_page_can_be_written_as_utf_8_with_lone_surrogates_in_the_data(hostile_example):
    html.render(*hostile_example).encode("utf-8")


def test_the_policy_allows_our_own_style_and_script_alone(scored_page):
    policy = next(value for value in scored_page.values("content") if "default-src" in value)
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    for kind in ("script", "style"):
        digest = base64.b64encode(hashlib.sha256("".join(scored_page.code[kind]).encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy


def test_nothing_is_loaded_from_anywhere(scored_page):
    css = "".join(scored_page.code["style"])
    assert "url(" not in css
    assert "@import" not in css
    assert all(ADDRESSES.fullmatch(address) for address in scored_page.values("href"))


def test_ids_are_unique_even_where_the_data_repeats_them(make_comparison):
    pairs = [Pair(key, 0, Answer(1.0), Answer(0.0), "negative_flip") for key in (1, "1", "a b", "a-b", "main")]
    pairs += [replace(pairs[0], repeat=1)]
    ids = Reader(html.render(make_comparison(pairs), pairs)).values("id")
    assert len(ids) == len(set(ids))
    assert {"flip-1", "flip-1-r1"} <= set(ids)


def test_headings_go_down_without_a_gap(scored_page):
    assert scored_page.tags.count("h1") == 1
    assert scored_page.tags.index("h1") < scored_page.tags.index("h2")


def test_every_drawing_has_a_name(scored_page):
    drawings = scored_page.tags.count("svg")
    named = [value for tag, key, value in scored_page.attributes if tag == "svg" and key == "aria-label" and value]
    hidden = [tag for tag, key, _ in scored_page.attributes if tag == "svg" and key == "aria-hidden"]
    nested = [tag for tag, key, value in scored_page.attributes if tag == "svg" and (key, value) == ("class", "over")]
    assert drawings == len(named) + len(hidden) + len(nested)


def test_the_verdict_comes_first_and_alignment_before_any_rate(scored_page):
    text = scored_page.text
    assert text.index("Fail") < text.index("How the two runs fit together") < text.index("How many answers got worse")


def test_all_negative_flips_are_there_worst_first(make_scored, make_comparison):
    pairs = make_scored(400)
    page = Reader(html.render(make_comparison(pairs), pairs))
    worst = sorted((pair for pair in pairs if pair.outcome == "negative_flip"), key=lambda pair: pair.change)
    shown = [value for value in page.values("id") if value.startswith("flip-")]
    assert len(shown) >= len(worst)
    first = [value for value in page.values("class") if value.startswith("flip ")]
    assert first[: len(worst)] == ["flip negative_flip"] * len(worst)


def test_no_flip_at_all_says_so(make_comparison):
    pairs = [Pair(index, 0, Answer(1.0), Answer(1.0), "tie") for index in range(20)]
    assert "No answer flipped." in Reader(html.render(make_comparison(pairs), pairs)).text


def test_one_pair_that_flipped_is_drawn(make_comparison):
    pairs = [Pair(1, 0, Answer(0.3), Answer(0.1), "negative_flip")]
    page = Reader(html.render(make_comparison(pairs), pairs))
    assert "1 of 1 got worse" in page.text
    assert "The text is not in the file." in page.text


def test_no_valid_pair_shows_no_rate(make_comparison):
    comparison = make_comparison([], verdict="invalid", reason="There is no valid pair to compare.")
    page = Reader(html.render(comparison, []))
    assert "n/a" in page.text
    assert "How many answers got worse" not in page.text


def test_right_and_wrong_become_a_matrix_instead_of_a_scatter(binary_example):
    page = html.render(*binary_example)
    assert "old wrong" in page
    assert 'class="scatter"' not in page


def test_both_rationales_of_a_pairwise_judge_can_be_read(judged_pairs, make_comparison):
    text = Reader(html.render(make_comparison(judged_pairs), judged_pairs)).text
    assert "The old answer names the cause." in text
    assert "Answer B is complete; answer A refuses." in text
    assert "timed out after 60 s" in text
    assert "inconsistent" in text


def test_the_limit_is_drawn_where_there_is_one(make_scored, make_comparison):
    pairs = make_scored(50)
    assert "limit 5 %" in html.render(make_comparison(pairs), pairs)
    assert "limit-label" not in Reader(html.render(make_comparison(pairs, provenance={}), pairs)).values("class")


def test_the_floor_is_drawn_where_it_was_measured(make_scored, make_comparison):
    pairs = make_scored(50)
    floor = {"nfr": {"k": 5, "n": 100, "value": 0.05, "low": 0.02, "high": 0.11}, "excess": {"value": 0.01}}
    assert "old model against itself 5.0 %" in html.render(make_comparison(pairs, floor=floor), pairs)


def test_languages_choose_their_own_direction(make_comparison):
    pairs = [Pair(1, 0, Answer(1.0, "لأن الجليد أقل كثافة"), Answer(0.0, "不知道"), "negative_flip", "لماذا؟")]
    page = Reader(html.render(make_comparison(pairs), pairs))
    assert "لأن الجليد أقل كثافة" in page.text
    assert page.values("dir").count("auto") >= 3


def test_a_huge_answer_is_cut_and_the_page_says_so(make_comparison):
    pairs = [Pair(1, 0, Answer(1.0, "word " * 40_000), Answer(0.0, "other " * 40_000), "negative_flip", "Why?")]
    page = html.render(make_comparison(pairs), pairs)
    assert len(page) < 400_000
    assert "150,000 more characters" in page
    assert "texts are cut after 50,000 characters" in page


def test_five_thousand_long_flips_stay_small_and_complete(make_scored, make_comparison):
    some = [replace(pair, outcome="negative_flip") for pair in make_scored(50, length=200)]
    pairs = [replace(pair, id=f"{pair.id}-{copy}") for copy in range(100) for pair in some]
    page = html.render(make_comparison(pairs), pairs)
    assert len(page.encode()) <= 6_000_000
    assert page.count('<details class="flip negative_flip"') == 5_000


def test_what_is_left_out_is_counted(make_comparison):
    pairs = [Pair(index, 0, Answer(0.0), Answer(1.0), "positive_flip") for index in range(1_200)]
    assert "700 of 1,200 positive flip pairs" in html.render(make_comparison(pairs), pairs)


def test_a_hostile_amount_of_quotes_stays_small(make_comparison):
    answer = Answer(1.0, "<&\"'>" * 400)
    pairs = [Pair(index, 0, answer, Answer(0.0, "&" * 2_000), "negative_flip") for index in range(1_500)]
    assert len(html.render(make_comparison(pairs), pairs).encode()) <= 6_000_000


def test_the_command_that_makes_the_report_again_is_at_the_end(scored_page):
    assert "flipguard compare old.jsonl new.jsonl --max-nfr 0.05" in scored_page.text


def test_the_same_comparison_gives_the_same_page(make_scored, make_comparison):
    pairs = make_scored(60)
    assert html.render(make_comparison(pairs), pairs) == html.render(make_comparison(pairs), pairs)


def test_scores_that_are_not_finite_do_not_break_the_drawing(make_comparison):
    pairs = [
        Pair(1, 0, Answer(float("inf")), Answer(1.0), "negative_flip"),
        Pair(2, 0, Answer(1.0), Answer(2.0), "tie"),
    ]
    page = html.render(make_comparison(pairs, net=Net(None, 1.0)), pairs)
    assert not re.search(r"[ ,\"M](nan|inf)[ ,\"]", page)


def test_hundreds_of_categories_are_counted_not_all_drawn(make_comparison):
    pairs = [Pair(index, 0, Answer(1.0), Answer(0.0), "negative_flip", None, (f"c{index}",)) for index in range(250)]
    page = html.render(make_comparison(pairs), pairs)
    assert page.count('class="forest neg"') == 200
    assert "50 more categories are in comparison.json" in page


def test_what_the_files_do_not_say_of_the_judge_is_named(judged_pairs, make_comparison):
    page = html.render(make_comparison(judged_pairs), judged_pairs)
    assert "Not in these files: identical answers, the same question twice, both orders" in page
    told = Health(identical=make_comparison(judged_pairs).nfr, retest=None)
    page = html.render(make_comparison(judged_pairs, health=told), judged_pairs)
    assert "identical answers graded apart" in page
    assert "Not in these files: the same question twice, both orders" in page


def test_files_read_are_listed_by_their_path_without_empty_values(judged_pairs, make_comparison):
    read = [
        {"path": "runs/old.jsonl", "format": "scores", "graded": {"": "acc"}, "rows": 1319, "sha256": "9f", "no": {}}
    ]
    page = html.render(make_comparison(judged_pairs, provenance={"inputs": read}), judged_pairs)
    assert "<bdi>runs/old.jsonl</bdi></th><td><bdi>format scores, graded acc, rows 1,319, sha256 9f</bdi>" in page


def test_scores_too_large_for_an_axis_are_not_drawn(make_comparison):
    pairs = [Pair(i, 0, Answer(-1e308 * i), Answer(1e308 * i), "positive_flip") for i in range(3)]
    page = html.render(make_comparison(pairs), pairs)
    assert "Each mark is one prompt" not in page
    assert "1e+308" in page


@pytest.mark.parametrize("places", [1_000, 3])
def test_points_of_very_many_pairs_are_picked_before_they_are_made_and_all_are_counted(
    places, make_comparison, monkeypatch
):
    monkeypatch.setattr(html, "_LOOKED_AT", 100)
    scores = [(index * 7 % places / places, index * 3 % places / places) for index in range(1_000)]
    pairs = [Pair(index, 0, Answer(old), Answer(new), "tie") for index, (old, new) in enumerate(scores)]
    pairs[5] = Pair(5, 0, Answer(0.5, error="failed"), Answer(0.5), "invalid")
    told = html._scatter(make_comparison(pairs), pairs)
    assert told["all"] == 999
    assert told["drawn"] == (999 if places == 3 else 100)
    assert told["repeats"] == (places == 3)


def test_the_worst_are_the_same_with_and_without_a_score_that_is_missing():
    changes = [-0.5, -0.75, -0.5, -0.25, 0.5, 0.25, 0.5, 0.75]
    kinds = ["negative_flip" if change < 0 else "positive_flip" for change in changes]
    pairs = [
        Pair(index, 0, Answer(1.0), Answer(1.0 + change), kind)
        for index, (change, kind) in enumerate(zip(changes, kinds, strict=True))
    ]
    unscored = Pair(99, 0, Answer(), Answer(), "invalid")  # beside it the scores are no array
    for kind, most in (("negative_flip", 3), ("positive_flip", 3), ("negative_flip", 9)):
        told = [[pair.id for pair in worst_first(Pairs.of(some), kind, most)] for some in (pairs, [*pairs, unscored])]
        assert told[0] == told[1]
        assert told[0][:3] == ([1, 0, 2] if kind == "negative_flip" else [7, 4, 6])
