"""The column design against plain dictionaries: whatever the rows are, both count the same."""

from collections import Counter

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flipguard.evaluate.compare import Options, compare_files

MARGIN = 0.25

# Exact in binary, so that a change may equal the margin.
GRADES = st.sampled_from([1.0, 0.0, 0.25, 0.375, 0.5, None])
ROW = st.fixed_dictionaries(
    {
        "score": GRADES,
        "completion": st.sampled_from(["same", "", "other", None]),
        "cluster": st.sampled_from(["k", None, "l"]),
    },
    optional={
        "category": st.sampled_from(["x", "y", ["x", "y"], []]),
        "prompt": st.sampled_from(["p", "q"]),
    },
)
FAILED = ROW.map(lambda row: row | {"error": "timeout"})
KEYS = [{"id": name, "repeat": repeat} for repeat in range(2) for name in (1, 2, 3, "a", "b", "ü")]
SIDE = st.one_of(ROW, ROW, ROW, ROW, ROW, FAILED, st.none())  # most prompts have both answers; some only one
RUNS = st.lists(st.tuples(SIDE, SIDE), min_size=len(KEYS), max_size=len(KEYS)).filter(
    lambda pairs: all(any(pair[side] is not None for pair in pairs) for side in (0, 1))
)


def by_key(rows):
    return {(row["id"], row.get("repeat", 0)): row for row in rows}


def names(row):
    said = row.get("category", [])
    return [said] if isinstance(said, str) else said


def became(old, new):
    if any(row["score"] is None or "error" in row for row in (old, new)):
        return "invalid"
    if old["completion"] is not None and old["completion"] == new["completion"]:
        return "tie"
    change = new["score"] - old["score"]
    return "negative_flip" if change < -MARGIN else "positive_flip" if change > MARGIN else "tie"


def reference(old_rows, new_rows):
    """All that is counted, one pair after the other."""
    old, new = by_key(old_rows), by_key(new_rows)
    both = [key for key in old if key in new]
    whole, slices, clusters, changed = Counter(), {}, Counter(), 0
    for key in both:
        before, after = old[key], new[key]
        outcome = became(before, after)
        whole[outcome] += 1
        changed += "prompt" in before and "prompt" in after and before["prompt"] != after["prompt"]
        if outcome != "invalid":
            cluster = after["cluster"] if before["cluster"] is None else before["cluster"]
            clusters[("id", key[0]) if cluster is None else ("cluster", cluster)] += 1
        for name in names(before) or names(after):
            slices.setdefault(name, Counter())[outcome] += 1
    n = len(both) - whole["invalid"]
    return {
        "counts": [n, *(whole[kind] for kind in ("negative_flip", "positive_flip", "tie", "invalid"))],
        "rates": [whole[kind] / n if n else None for kind in ("negative_flip", "positive_flip")],
        "slices": {
            name: [sum(part.values()) - part["invalid"], part["negative_flip"], part["positive_flip"]]
            for name, part in slices.items()
        },
        "clusters": (len(clusters), max(clusters.values())) if clusters and max(clusters.values()) > 1 else None,
        "alignment": [len(old), len(new), len(both), len(old) - len(both), len(new) - len(both), 0, changed, 0],
    }


def counted(document):
    """The same out of comparison.json."""
    shared = document["clustered"]
    return {
        "counts": [document[name] for name in ("n", "negative_flips", "positive_flips", "ties", "invalid")],
        "rates": [document[name]["value"] for name in ("nfr", "win_rate")],
        "slices": {
            part["name"]: [part["n"], part["negative_flips"], part["positive_flips"]] for part in document["slices"]
        },
        "clusters": shared and (shared["clusters"], shared["largest"]),
        "alignment": list(document["alignment"].values()),
    }


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pairs=RUNS, order=st.permutations(range(len(KEYS))))
def test_columns_count_what_one_pair_after_the_other_gives(write, pairs, order):
    old = [KEYS[i] | pair[0] for i, pair in enumerate(pairs) if pair[0] is not None]
    new = [KEYS[i] | pairs[i][1] for i in order if pairs[i][1] is not None]
    paths = write("old.jsonl", old), write("new.jsonl", new)
    document = compare_files(*paths, Options(margin=MARGIN)).comparison.to_json()
    assert counted(document) == reference(old, new)
