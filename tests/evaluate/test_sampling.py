"""Every interval and test keeps clusters whole where pairs share them, and is exact where they do not."""

from itertools import product
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flipguard.evaluate.bootstrap import clustered, clusters_to_decide
from flipguard.evaluate.compare import Options, compare_files
from flipguard.evaluate.comparison import Answer, Pair
from flipguard.evaluate.permutation import sign_flip, signs
from flipguard.evaluate.report import html, markdown, terminal
from flipguard.evaluate.sampling import Sampling
from flipguard.evaluate.stats import mcnemar, proportion

few = settings(max_examples=60, deadline=None)
HOW = Sampling(clusters=True)


@few
@given(nets=st.lists(st.integers(-4, 4), max_size=11))
def test_the_signs_of_clusters_are_those_of_every_way_to_choose_them(nets):
    seen = abs(sum(nets))
    sums = [
        abs(sum(sign * net for sign, net in zip(chosen, nets, strict=True)))
        for chosen in product((1, -1), repeat=len(nets))
    ]
    assert signs(nets, Random(0)) == pytest.approx(sum(total >= seen for total in sums) / len(sums))


@few
@given(negative=st.integers(0, 300), positive=st.integers(0, 300), size=st.integers(1, 5))
def test_clusters_of_one_size_that_move_as_one_are_mcnemars_coins(negative, positive, size):
    assert signs([-size] * negative + [size] * positive, Random(0)) == pytest.approx(mcnemar(negative, positive))


def test_an_exact_distribution_of_many_clusters_agrees_with_drawn_signs():
    nets = [Random(3).choice([-2, -1, 0, 1, 3]) for _ in range(200)]
    assert len([net for net in nets if net]) > 26
    assert signs(nets, Random(0)) == pytest.approx(sign_flip(nets, Random(0), 20_000)[0], abs=0.01)


def alike(prompts, times, outcome="negative_flip"):
    return [Pair(i, r, Answer(), Answer(), outcome) for i in range(prompts) for r in range(times)]


def test_a_share_of_pairs_without_common_clusters_is_exact_and_of_others_is_not():
    alone, together = alike(40, 1), alike(40, 5)
    assert HOW.share(alone[:4], alone, "x") == proportion(4, 40)
    told = HOW.share(together[:20], together, "x")
    assert (told.k, told.n, told.value, told.over) == (20, 200, 0.1, "clusters")
    assert told.high - told.low > 1.5 * (proportion(20, 200).high - proportion(20, 200).low)
    assert Sampling().share(together[:20], together, "x") == proportion(20, 200)


def test_pairs_of_one_cluster_change_sign_together():
    more, less = alike(7, 3), []
    assert HOW.test(more, less, "x") == (pytest.approx(2 * 0.5**7), "signs of clusters")
    assert HOW.test(alike(7, 1), less, "x") == (mcnemar(0, 7), "exact McNemar")


@pytest.fixture
def repeated(write):
    """Forty prompts five times over, eight of them broken throughout, and a category of prompts asked once."""

    def rows(broken):
        for i in range(60):
            for repeat in range(5 if i < 40 else 1):
                name = "single" if i >= 40 else "ab"[i % 2]
                right = i % 10 != 9 and not (broken and i < 8)
                says = "I'm sorry, but I can't help with that." if broken and i < 8 else f"Answer {i}.{repeat}{broken}"
                yield {"id": i, "repeat": repeat, "correct": right, "category": name, "completion": says}

    return compare_files(write("o.jsonl", list(rows(False))), write("n.jsonl", list(rows(True))), Options(max_nfr=0.2))


def test_rates_categories_and_tests_say_that_clusters_were_kept_whole(repeated):
    told = repeated.comparison
    assert {told.nfr.over, told.win_rate.over, told.nfr_given_correct.over} == {"clusters"}
    assert told.nfr_given_correct.high > proportion(40, told.nfr_given_correct.n).high
    assert (told.net.p_value, told.net.test) == (pytest.approx(2 * 0.5**8), "signs of clusters")
    a, b, single = told.slices
    assert (a.nfr.over, a.test, a.p_value) == ("clusters", "signs of clusters", pytest.approx(2 * 0.5**4))
    assert a.nfr.high > proportion(a.nfr.k, a.n).high
    assert (single.nfr.over, single.test, single.p_value) == ("pairs", "exact McNemar", 1.0)
    assert b.p_adjusted == pytest.approx(3 * 2 * 0.5**4)
    assert told.refusals.test == told.shifts.lengths.test == "signs of clusters"
    assert told.refusals.refuses_now.over == "clusters"


def test_every_view_says_that_the_net_change_is_tested_over_clusters(repeated):
    told = repeated.comparison
    assert "over clusters" in terminal.render(told)
    assert "over clusters" in markdown.render(told, repeated.pairs)
    assert "sign test of whole clusters" in html.render(told, repeated.pairs)


def test_the_clusters_asked_for_decide_as_often_as_promised():
    """Clusters as those seen, again and again: the gate's bound is below the limit in about 80 of 100 runs."""
    rng = Random(4)

    def drawn(many):
        rates = [rng.betavariate(0.05, 0.95) for _ in range(many)]
        return [
            Pair(i, r, Answer(), Answer(), "negative_flip" if rng.random() < rate else "tie")
            for i, rate in enumerate(rates)
            for r in range(5)
        ]

    pilot = next(p for p in iter(lambda: drawn(60), None) if abs(sum(x.outcome != "tie" for x in p) - 15) <= 1)
    told, k = clustered(pilot), sum(pair.outcome != "tie" for pair in pilot)
    needed = clusters_to_decide(proportion(k, 300), told, limit=0.1)
    assert 100 < needed < 300
    decided = sum(clustered(drawn(needed), seed=run, draws=199).nfr.upper <= 0.1 for run in range(60))
    assert decided / 60 > 0.6


def test_without_a_flip_the_clusters_asked_for_are_not_fewer_than_there_are():
    told = clustered(alike(40, 10, "tie"))
    assert clusters_to_decide(proportion(0, 400), told, 0.02) > 100
    assert clusters_to_decide(proportion(0, 400), told, 0.0) is None
