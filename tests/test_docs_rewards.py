"""docs/rewards.md: its server is started and asked, its recipe is read, its kinds are all there."""

import re
import threading
from pathlib import Path

import pytest

from flipguard.rewards.opening import open_reward
from flipguard.rewards.spec import RewardSpec

PAGE = (Path(__file__).parent.parent / "docs" / "rewards.md").read_text(encoding="utf-8")


def block(language):
    (found,) = re.findall(rf"```{language}\n(.*?)```", PAGE, flags=re.DOTALL)
    return found


def test_the_server_of_the_page_answers():
    code = block("python").replace("8000", "0").replace("server.serve_forever()", "")
    names = {}
    exec(compile(code, "rewards.md", "exec"), names)  # the reader's own server
    names["Reward"].log_message = lambda *_: None
    with names["server"] as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        spec = RewardSpec(path=f"http://127.0.0.1:{server.server_address[1]}/")
        assert open_reward(spec, "--model").function(["x"], ["y" * 50]) == [0.5]
        server.shutdown()
        thread.join()


def test_the_recipe_of_the_page_is_one(tmp_path):
    recipes = pytest.importorskip("flipguard.train.recipe")
    path = tmp_path / "reward.yaml"
    path.write_text(block("yaml"))
    assert recipes.load_recipe(path).algorithm == "reward"
