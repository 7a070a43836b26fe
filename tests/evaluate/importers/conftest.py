from pathlib import Path

import pytest

DATA = Path(__file__).parents[4] / "shared" / "data"


@pytest.fixture
def shared():
    """The folder of public data beside the project, where a test of real files finds them."""
    if not DATA.exists():
        pytest.skip("the public data sets are not beside this project")
    return DATA
