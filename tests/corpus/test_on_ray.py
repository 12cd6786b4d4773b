import os
import signal

import pytest

from lam_model.corpus.on_ray import on_ray


class Work:
    """Doubles numbers; an actor that comes upon 3 is killed, once."""

    def __init__(self, mark):
        self.mark = str(mark)

    def __call__(self, number):
        if number == 3 and not os.path.exists(self.mark):
            open(self.mark, "w").close()
            os.kill(os.getpid(), signal.SIGKILL)
        if number == 13:
            raise ValueError("13 is refused")
        return 2 * number


@pytest.fixture(autouse=True)
def _work_can_be_imported_by_actors(monkeypatch):
    pytest.importorskip("ray")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([os.path.dirname(__file__), os.environ.get("PYTHONPATH", "")]))


def test_every_item_is_done_though_an_actor_is_killed_and_errors_are_raised(tmp_path):
    mark = tmp_path / "killed"
    assert sorted(on_ray(Work(mark), range(7), workers=2)) == [0, 2, 4, 6, 8, 10, 12]
    assert mark.exists()
    with pytest.raises(ValueError, match="13 is refused"):
        list(on_ray(Work(mark), [1, 13], workers=1))
