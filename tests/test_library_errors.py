"""What the library says of inputs that can't be used, and how it ends where nothing was closed."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.fakes import FakeEngine, fake_embedder, fake_info, until
from text_embeddings_inference import Embedder, EncodeOptions, Pooling, load
from text_embeddings_inference.errors import EmptyInputError, InferenceError, InputError
from text_embeddings_inference.settings import Settings
from text_embeddings_inference.types import Kind

MODELS = Path(__file__).parent / "fixtures" / "models"
STRICT = EncodeOptions(truncate=False)


@pytest.fixture(scope="module")
def bert() -> Iterator[Embedder]:
    with load(MODELS / "bert", dtype="float32", threads=2, streams=1) as model:
        yield model


def test_errors_name_the_place(bert: Embedder) -> None:
    with pytest.raises(EmptyInputError, match=r"cannot be empty - at `inputs\[1\]`$"):
        bert.embed(["a", ""])
    with pytest.raises(InputError, match=r"tokens. Given: 102 - at `inputs\[3\]`$"):
        bert.embed_all(["a", "b", "a", "b " * 100], options=STRICT)
    with (
        load(MODELS / "bert-reranker", dtype="float32", threads=1) as reranker,
        pytest.raises(InputError, match=r"at `texts\[2\]`$"),
    ):
        reranker.rerank("a", ["b", "b", "b " * 100], options=STRICT)


def test_the_place_of_an_input_on_which_the_engine_failed() -> None:
    with fake_embedder(engine := FakeEngine()) as model:
        engine.bad_ids = {13}
        with pytest.raises(InferenceError, match=r"see the server's log - at `inputs\[3\]`$"):
            model.embed(["1", "2", "1", "13", "13"])


@pytest.mark.parametrize(
    ("item", "shown"),
    [
        (None, "None"),
        (1, "1"),
        (b"a", "b'a'"),
        (("a",), r"\('a',\)"),
        (("a", None), r"\('a', None\)"),
        (["a", "b"], r"\['a', 'b'\]"),
        ([1, 2.5], r"\[1, 2.5\]"),
        ({"text": "a" * 100}, "a dict"),
    ],
    ids=str,
)
def test_an_input_of_a_wrong_type(bert: Embedder, item: Any, shown: str) -> None:
    with pytest.raises(TypeError, match=rf"^`inputs\[1\]` must be a text, a pair .* list of token ids, not {shown}$"):
        bert.embed(["a", item])


@pytest.mark.parametrize("inputs", [None, 5, b"text", {"a": "b"}, {"a"}], ids=str)
def test_what_is_no_list_of_inputs(bert: Embedder, inputs: Any) -> None:
    with pytest.raises(TypeError, match=r"^`inputs` must be a list, not "):
        bert.embed(inputs)


def test_lists_of_other_kinds(bert: Embedder) -> None:
    expected_vectors = bert.embed(["a", "b"])
    np.testing.assert_array_equal(bert.embed(("a", "b")), expected_vectors)
    np.testing.assert_array_equal(bert.embed(np.array(["a", "b"])), expected_vectors)  # type: ignore[arg-type]
    np.testing.assert_array_equal(bert.embed([list(np.array([5, 6]))]), bert.embed([[5, 6]]))


@pytest.mark.parametrize(
    ("option", "value", "kind", "allowed"),
    [
        ("warmup", "x", ValueError, "one of off, fast, full"),
        ("auto_truncate", "yes", ValueError, "one of true, false"),
        ("auto_truncate", 1, TypeError, "one of true, false"),
        ("revision", 5, TypeError, "a text"),
        ("threads", -1, ValueError, "an integer from 1"),
        ("threads", True, TypeError, "an integer from 1"),
        ("threads", "many", ValueError, "an integer from 1"),
        ("threads", None, TypeError, "an integer from 1"),
        ("streams", 0, ValueError, "an integer from 1 or 'auto'"),
        ("max_batch_tokens", 2.5, TypeError, "an integer from 1"),
        ("max_batch_tokens", 0, ValueError, "an integer from 1"),
        ("pooling", "mena", ValueError, "one of cls, mean, splade, last-token, max"),
        ("dtype", np.float32, TypeError, "one of auto, float32"),
        ("compile_cache", 3, TypeError, "a path"),
        ("huggingface_hub_cache", b"x", TypeError, "a path"),
        ("hf_home", 3, TypeError, "of type str or PathLike"),
        ("hf_hub_offline", "0", TypeError, "of type bool"),
        ("hf_token", 12345, TypeError, "a text"),
    ],
)
def test_an_option_that_is_not_allowed(option: str, value: Any, kind: type[Exception], allowed: str) -> None:
    with pytest.raises(kind, match=rf"^`{option}` can't be .*{allowed}"):
        load(MODELS / "bert", **{option: value})


def test_options_are_taken_as_on_the_command_line() -> None:
    options = {
        "threads": "1",
        "streams": "auto",
        "max_batch_tokens": "64",
        "auto_truncate": "true",
        "pooling": "last-token",
    }
    with load(MODELS / "bert", dtype="float32", compile_cache=None, **options) as model:
        assert (model.info.pooling, model.info.max_input_length) == (Pooling.LAST_TOKEN, 48)
    assert Settings.of(model_id="m", max_batch_requests=0, batch_timeout="auto", threads=np.int64(2)) == Settings.of(
        model_id="m", threads=2
    )


@pytest.mark.parametrize(
    ("option", "instead"),
    [("api_key", "it is a server's"), ("poling", "did you mean 'pooling'"), ("x", "there are auto")],
)
def test_an_unknown_option(option: str, instead: str) -> None:
    with pytest.raises(TypeError, match=f"{option}.*{instead}"):
        load(MODELS / "bert", **{option: "x"})


def test_queries_and_texts_of_a_wrong_type() -> None:
    with fake_embedder(FakeEngine(dimensions=1), fake_info(Kind.RERANKER)) as model:
        with pytest.raises(TypeError, match=r"^`texts\[1\]` must be a text, not None$"):
            model.rerank("1", ["2", None])  # type: ignore[list-item]
        with pytest.raises(TypeError, match=r"^`query` must be a text, not 3$"):
            model.rerank(3, ["2"])  # type: ignore[arg-type]


# --- the end of a process that closes nothing -------------------------------------------------------------------------

BUSY = """
from text_embeddings_inference import load
from text_embeddings_inference.errors import RequestError

model = load({path!r}, dtype="float32", threads=2)
try:
    model.embed([f"a b {{number}} " * 20 for number in range(3000)] + [""])
except RequestError as error:
    print(error)
"""


@pytest.mark.parametrize("attempt", range(3))
def test_an_error_while_the_engine_is_busy_and_no_close(attempt: int) -> None:
    done = ended(BUSY.format(path=str(MODELS / "bert")))
    assert done.stdout == "Input validation error: `inputs` cannot be empty - at `inputs[3000]`\n"


def test_a_thread_is_asking_when_the_process_ends() -> None:
    program = """
import threading
from text_embeddings_inference import load
from text_embeddings_inference.errors import InferenceError

model, asked = load({path!r}, dtype="float32", threads=2), threading.Event()

def ask():
    try:
        for number in range(100000):
            model.embed([f"{{number}} {{other}}" for other in range(300)])
            asked.set()
    except InferenceError:
        pass

threading.Thread(target=ask, daemon=True).start()
asked.wait()
"""
    ended(program.format(path=str(MODELS / "bert")))


FORK = """
import os, signal, sys
from text_embeddings_inference import load
from text_embeddings_inference.errors import InferenceError

model = load({path!r}, dtype="float32", threads=2)
model.runner._changed.acquire()  # as a thread may have done in the moment of the fork, which the child lacks
if child := os.fork():
    model.runner._changed.release()
    assert os.waitpid(child, 0)[1] == 0
    model.embed(["a"])
else:
    signal.alarm(30)
    {then}
"""


@pytest.mark.parametrize(
    "then",
    [
        pytest.param("sys.exit()", id="ends"),
        pytest.param("model.close()", id="closes it"),
        pytest.param(
            "\n    try:\n        model.embed(['a'])\n        os._exit(1)\n"
            "    except InferenceError as error:\n        assert 'load it in the child' in str(error)",
            id="asks it",
        ),
    ],
)
def test_a_child_of_a_fork(then: str) -> None:
    ended(FORK.format(path=str(MODELS / "bert"), then=then))


def ended(program: str) -> subprocess.CompletedProcess[str]:
    """A Python process that ended by itself, without a word on stderr."""
    command = [sys.executable, "-c", program]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    return done


def test_a_model_that_is_dropped_gives_back_its_threads() -> None:
    before, engine = set(threading.enumerate()), FakeEngine()
    model = fake_embedder(engine)
    model.embed(["1"])
    del model
    gc.collect()
    until(lambda: engine.closed == 1 and before.issuperset(threading.enumerate()))
