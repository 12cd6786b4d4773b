"""Work on Ray Data: one process reads the items, actors do the work, on this machine or on a cluster."""

from __future__ import annotations

import logging
import os
import pickle
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

_AHEAD = 2  # items of an actor that it works on or that wait for it


def on_ray(
    work: Callable[[Item], Result], items: Iterable[Item], workers: int, address: str | None = None, gpus: float = 0
) -> Iterator[Result]:
    """The results of items, as they come. An actor that is killed is started again, and its items are done again.

    Args:
        work, items: they are pickled; the items are gone through in a process of their own.
        workers: actors, a core each.
        address: of a cluster that runs, as for `ray.init`; all that files name must lie where all its machines see it.
        gpus: of each actor.

    Raises:
        ModuleNotFoundError: Ray is not installed.
        ConnectionError: there is no cluster at the address.
        Exception: what the work or the items raise.
    """
    try:
        import ray
        from ray.data import ActorPoolStrategy, DataContext, read_datasource
        from ray.data.block import BlockMetadata
        from ray.data.datasource import Datasource, ReadTask
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("--engine ray needs Ray: pip install 'lam-model[ray]'") from error

    class Items(Datasource):
        def estimate_inmemory_data_size(self) -> None:
            return None

        def get_read_tasks(self, parallelism: int, *_: Any, **__: Any) -> list[Any]:
            def rows() -> Iterator[Any]:
                import pyarrow

                for item in _caught(items):
                    yield pyarrow.table({"item": [pickle.dumps(item)]})

            unknown = BlockMetadata(num_rows=None, size_bytes=None, exec_stats=None, input_files=None)
            return [ReadTask(rows, unknown)]

    class Actor:
        def __call__(self, rows: dict[str, Any]) -> dict[str, list[bytes]]:
            found = _caught(_done(work, item) for item in map(pickle.loads, rows["item"]))
            return {"result": list(map(pickle.dumps, found))}

    # Ray tells of its own doings on stderr.
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    ray.init(address, logging_level=logging.ERROR, log_to_driver=False, include_dashboard=None if address else False)
    try:
        context = DataContext.get_current()
        context.target_min_block_size = context.target_max_block_size = 1  # an item is handed on as soon as it is read
        context.enable_progress_bars = False
        read = read_datasource(Items(), num_cpus=0, override_num_blocks=1)
        pool = ActorPoolStrategy(size=workers, max_tasks_in_flight_per_actor=_AHEAD)
        done = read.map_batches(Actor, batch_size=1, compute=pool, num_cpus=0 if gpus else 1, num_gpus=gpus or None)
        for row in done.iter_rows():
            result = pickle.loads(row["result"])
            if isinstance(result, _Raised):
                raise result.error
            yield result
    finally:
        ray.shutdown()


class _Raised(NamedTuple):
    """What was raised in another process: Ray would put its own error in its place."""

    error: Exception


def _caught(results: Iterable[Any]) -> Iterator[Any]:
    try:
        yield from results
    except Exception as error:
        yield _Raised(error)


def _done(work: Callable[[Any], Any], item: Any) -> Any:
    return item if isinstance(item, _Raised) else work(item)
