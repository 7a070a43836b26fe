import orjson
import pytest


@pytest.fixture
def write(tmp_path):
    """Write rows, or raw bytes, to a file of this name and return its path."""

    def to_file(name, rows):
        path = tmp_path / name
        path.write_bytes(rows if isinstance(rows, bytes) else b"".join(orjson.dumps(row) + b"\n" for row in rows))
        return path

    return to_file
