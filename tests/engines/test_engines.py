import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from cupola.engines import InProcess, Processes, choose_engine, in_order
from cupola.errors import ConfigError, CupolaError, DiskError

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Work:
    """A task with every way to end. numbers below zero misbehave."""

    factor: int = 2

    def __call__(self, number: int) -> int:
        if number == -1:
            raise DiskError("cannot write there; free some space")
        if number == -2:
            os._exit(3)
        if number == -3:
            os.kill(os.getpid(), signal.SIGKILL)
        if number == -4:
            print("chatter on stdout")
        if number == -5:
            raise ZeroDivisionError("a defect")
        if number == -6:
            time.sleep(60)
        return number * self.factor


@dataclass(frozen=True)
class Surroundings:
    def __call__(self, number: int) -> tuple[bool, int, str | None]:
        import cv2

        return "torch" in sys.modules, cv2.getNumThreads(), os.environ.get("NUMBA_NUM_THREADS")


@pytest.mark.parametrize("engine", [InProcess(), Processes(1), Processes(3)])
def test_the_same_results_whatever_the_engine(engine):
    done = dict(engine.map(Work(3), range(10)))
    assert done == {number: 3 * number for number in range(10)}


def test_workers_serve_several_maps_and_end_with_the_block():
    with Processes(2) as engine:
        first = {process for _, process in engine.map(Ident(), range(20))}
        second = {process for _, process in engine.map(Ident(), range(20))}
        assert dict(engine.map(Work(5), range(3))) == {0: 0, 1: 5, 2: 10}
    assert second == first
    assert not any(_alive(process) for process in first)


def test_an_engine_that_failed_can_be_used_again():
    with Processes(1) as engine:
        with pytest.raises(DiskError):
            list(engine.map(Work(), [-1]))
        assert dict(engine.map(Work(), [1])) == {1: 2}


def test_nothing_to_do():
    assert list(Processes(2).map(Work(), [])) == []
    assert list(InProcess().map(Work(), [])) == []


@pytest.mark.parametrize("engine", [InProcess(), Processes(2)])
def test_an_error_comes_as_it_is(engine):
    with pytest.raises(DiskError, match="free some space"):
        list(engine.map(Work(), [1, -1, 2]))
    with pytest.raises(ZeroDivisionError, match="a defect"):
        list(engine.map(Work(), [-5]))


def test_the_workers_traceback_is_a_note():
    with pytest.raises(ZeroDivisionError) as caught:
        list(Processes(1).map(Work(), [-5]))
    assert "in a worker process" in caught.value.__notes__[0]
    assert "line" in caught.value.__notes__[0]


@pytest.mark.parametrize(
    ("number", "ending"), [(-2, "with exit code 3; run the same"), (-3, "for lack of memory; .* fewer --workers")]
)
def test_a_worker_that_is_ended_is_one_sentence(number, ending):
    with pytest.raises(CupolaError, match=f"a worker process was ended .*{ending}"):
        list(Processes(2).map(Work(), [1, number, 2]))


def test_what_a_worker_prints_does_not_disturb():
    assert dict(Processes(1).map(Work(), [-4, 5])) == {-4: -8, 5: 10}


def test_leaving_the_loop_ends_the_workers():
    results = Processes(2).map(Work(), [1, -6, -6])
    assert next(results) == (1, 2)
    start = time.monotonic()
    results.close()
    assert time.monotonic() - start < 30, "the workers sleep for 60 s unless they are ended"


def test_items_are_drawn_as_workers_become_free():
    drawn = []

    def items():
        for number in range(1000):
            drawn.append(number)
            yield number

    results = Processes(2).map(Work(), items())
    next(results)
    results.close()
    assert len(drawn) < 100


def test_an_error_of_the_items_is_raised():
    def items():
        yield 1
        raise DiskError("no more items")

    with pytest.raises(DiskError, match="no more items"):
        list(Processes(2).map(Work(), items()))


def test_workers_have_one_thread_and_no_torch():
    for _, (torch, cv2_threads, numba_threads) in Processes(1).map(Surroundings(), [0]):
        assert not torch
        assert cv2_threads == 1
        assert numba_threads == "1"


def test_in_process_restores_the_threads_of_opencv():
    import cv2

    cv2.setNumThreads(2)
    ((_, (_, inside, _)),) = list(InProcess().map(Surroundings(), [0]))
    assert inside == 1
    assert cv2.getNumThreads() == 2


def test_a_function_that_cannot_travel_is_one_sentence():
    with pytest.raises(ConfigError, match="cannot be sent to another process"):
        list(Processes(1).map(lambda number: number, [1]))


def test_a_function_of_the_script_itself_is_one_sentence(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "from cupola.engines import Processes\n"
        "class Mine:\n"
        "    def __call__(self, number): return number\n"
        "list(Processes(1).map(Mine(), [1]))\n"
    )
    result = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert "is defined in the script itself" in result.stderr


def test_a_plain_script_needs_no_main_guard(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        f"import sys\nsys.path.insert(0, {str(HERE)!r})\nprint('once')\n"
        "from cupola.engines import Processes\nfrom test_engines import Work\n"
        "print(sorted(Processes(2).map(Work(), range(4))))\n"
    )
    result = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines() == ["once", "[(0, 0), (1, 2), (2, 4), (3, 6)]"]


def test_workers_end_with_a_parent_that_is_killed(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        f"import sys, os\nsys.path.insert(0, {str(HERE)!r})\n"
        "from cupola.engines import Processes\nfrom test_engines import Ident\n"
        "for number, process in Processes(2).map(Ident(), range(100000)):\n    print(process, flush=True)\n"
    )
    parent = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True)
    workers = {int(parent.stdout.readline()) for _ in range(20)}
    parent.kill()
    parent.wait()
    parent.stdout.close()
    for _ in range(200):
        if not any(_alive(worker) for worker in workers):
            return
        time.sleep(0.05)
    pytest.fail(f"workers {workers} outlive their parent")


@dataclass(frozen=True)
class Ident:
    def __call__(self, number: int) -> int:
        time.sleep(0.01)
        return os.getpid()


def _alive(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z"


@pytest.mark.parametrize(("workers", "items", "kind"), [(1, 9, InProcess), (4, 1, InProcess), (2, 9, Processes)])
def test_no_worker_in_vain(workers, items, kind):
    assert isinstance(choose_engine(workers, items), kind)


def test_negative_workers_are_refused():
    with pytest.raises(ConfigError, match="workers must be 0"):
        choose_engine(-1, 3)


def test_in_order_gives_results_as_soon_as_those_before_are_there():
    taken = []

    def done():
        for number in (1, 0, 2):
            taken.append(number)
            yield number, f"r{number}"

    results = in_order(done())
    assert next(results) == "r0"
    assert taken == [1, 0]
    assert list(results) == ["r1", "r2"]
