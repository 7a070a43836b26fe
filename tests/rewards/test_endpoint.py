"""Rewards over HTTP, against a real server on this machine."""

import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import orjson
import pytest

from flipguard.errors import JudgeError
from flipguard.rewards.opening import open_reward
from flipguard.rewards.spec import RewardSpec
from flipguard.scorers import Answered, grade


class Server(ThreadingHTTPServer):
    """Answers with the lengths of the completions, unless `say` holds other things to say first."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked, self.say, self.keys = [], [], []

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}/score"


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = orjson.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append(body)
        self.server.keys.append(self.headers["Authorization"])
        plain = orjson.dumps({"scores": [len(text) for text in body["completions"]]})
        status, answer, wait = self.server.say.pop(0) if self.server.say else (200, plain, 0)
        time.sleep(wait)
        self.send_response(status)
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        """A test's output is its result."""


@pytest.fixture
def server():
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def scores(server, completions=("a", "bb", "ccc"), **spec):
    scorer = open_reward(RewardSpec(path=server.url, **spec), "--model")
    return scorer.function(["x"] * len(completions), list(completions))


def test_completions_are_scored_in_batches_with_their_columns(server):
    scorer = open_reward(RewardSpec(path=server.url, batch_size=2), "--model")
    assert scorer.function(["x", "y", "z"], ["a", "bb", "ccc"], reference=["1", "2", "3"]) == [1, 2, 3]
    assert [len(body["prompts"]) for body in server.asked] == [2, 1]
    assert server.asked[1] == {"prompts": ["z"], "completions": ["ccc"], "reference": ["3"]}


def test_a_busy_server_is_asked_again(server):
    server.say = [(503, b"busy", 0), (429, b"busy", 0)]
    assert scores(server) == [1, 2, 3]
    assert len(server.asked) == 3


def test_a_slow_answer_is_given_up_and_asked_again(server):
    server.say = [(200, b"late", 0.5)]
    assert scores(server, timeout=0.1) == [1, 2, 3]


@pytest.mark.parametrize("answer", [b'{"rewards": [1, 2, 3]}', b"[1, 2, 3]"])
def test_other_servers_spellings_are_understood(server, answer):
    server.say = [(200, answer, 0)]
    assert scores(server) == [1, 2, 3]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((200, b'{"scores": [1]}', 0), r"answered 1 scores for 3 completions"),
        ((200, b"<html>", 0), r"answered b'<html>' for 3 completions"),
        ((200, b'{"score": 1}', 0), r"for 3 completions"),
        ((404, b"no\x1b[31m", 0), r"answered with status 404: b'no\\x1b\[31m'"),
    ],
)
def test_what_is_no_answer_is_told_in_one_line(server, answer, said):
    server.say = [answer]
    with pytest.raises(JudgeError, match=said) as error:
        scores(server)
    assert server.url in str(error.value)
    assert "\n" not in str(error.value)


def test_a_server_that_stays_busy_is_told_with_its_status(server):
    server.say = [(503, b"busy", 0)] * 3
    with pytest.raises(JudgeError, match="status 503"):
        scores(server, retries=2)


def test_a_server_that_is_down_is_told():
    scorer = open_reward(RewardSpec(path="http://127.0.0.1:9/score", retries=1), "--model")
    with pytest.raises(JudgeError, match=r"no answer, also not after 1 retries .*Is the server up\?"):
        scorer.function(["x"], ["a"])


def test_words_and_infinities_of_a_server_never_become_scores(server):
    server.say = [(200, b'{"scores": [null, 1e999, 2]}', 0), (200, b'{"scores": [1, "good", 2]}', 0)]
    scorer = open_reward(RewardSpec(path=server.url), "--model")
    answers = [Answered(at, "x", "a") for at in range(3)]
    with pytest.raises(JudgeError):  # 1e999 is no JSON number that can be held
        grade(scorer, answers, {}, place="batch 0")
    with pytest.raises(JudgeError, match="returned 'good'"):
        grade(scorer, answers, {}, place="batch 1")


def test_a_key_of_the_environment_is_sent(server, monkeypatch):
    monkeypatch.setenv("FLIPGUARD_REWARD_KEY", "secret")
    scores(server)
    assert server.keys == ["Bearer secret"]
