"""Names, bounds and the text format of the metrics."""

import pytest

from tests.fakes import fake_info
from text_embeddings_inference.telemetry.instruments import SECONDS, plain, powers_of_two
from text_embeddings_inference.telemetry.metrics import Metrics
from text_embeddings_inference.types import Timings

TIMINGS = Timings(tokenization=0.001, queue=0.002, inference=0.25)
DURATIONS = ("duration", "tokenization_duration", "queue_duration", "inference_duration")


def used() -> Metrics:
    """Metrics on which everything was called once."""
    metrics = Metrics(max_input_length=512)
    metrics.request_started("single")
    metrics.request_succeeded("batch", 0.5, TIMINGS)
    metrics.request_failed("overloaded")
    metrics.input_lengths([12])
    metrics.task_started("embed", 1)
    metrics.task_succeeded("embed", 0.5, TIMINGS, 1)
    metrics.task_started("predict", 1)
    metrics.task_succeeded("predict", 0.5, TIMINGS, 1)
    metrics.queue_size(3)
    metrics.batch_formed(2, 30)
    metrics.batch_computed(30, 32, 64)
    metrics.engine_busy(0.25)
    metrics.engine_replaced()
    metrics.fidelity(0.9999)
    metrics.model(fake_info(served_name='a\\b"c\nd'))
    return metrics


def samples(metrics: Metrics) -> dict[str, str]:
    lines = metrics.render().decode().splitlines()
    return dict(line.rsplit(" ", 1) for line in lines if line and not line.startswith("#"))


def test_nothing_before_the_first_use() -> None:
    assert Metrics(512).render() == b""


def test_names_and_types_are_pinned() -> None:
    lines = used().render().decode().splitlines()
    assert [line.removeprefix("# TYPE ") for line in lines if line.startswith("#")] == [
        "te_request_count counter",
        "te_request_success counter",
        "te_request_failure counter",
        *(f"te_request_{name} histogram" for name in DURATIONS),
        "te_request_input_length histogram",
        "te_embed_count counter",
        "te_embed_success counter",
        *(f"te_embed_{name} histogram" for name in DURATIONS),
        "te_predict_count counter",
        "te_predict_success counter",
        *(f"te_predict_{name} histogram" for name in DURATIONS),
        "te_queue_size gauge",
        "te_batch_next_size histogram",
        "te_batch_next_tokens histogram",
        "tei_queue_age_seconds gauge",
        "tei_batch_tokens_total counter",
        "tei_batch_computed_tokens_total counter",
        "tei_batch_budget_tokens_total counter",
        "tei_engine_busy_seconds_total counter",
        "tei_engine_replacements_total counter",
        "tei_fidelity gauge",
        "tei_model_info gauge",
    ]


def test_text_format() -> None:
    metrics = Metrics(4)
    metrics.request_started("single")
    metrics.request_started("batch")
    metrics.request_started("single")
    metrics.input_lengths([1, 2, 3, 9])
    metrics.queue_size(0)
    assert metrics.render() == (
        b"# TYPE te_request_count counter\n"
        b'te_request_count{method="single"} 2\n'
        b'te_request_count{method="batch"} 1\n'
        b"\n"
        b"# TYPE te_request_input_length histogram\n"
        b'te_request_input_length_bucket{le="1"} 1\n'
        b'te_request_input_length_bucket{le="2"} 2\n'
        b'te_request_input_length_bucket{le="4"} 3\n'
        b'te_request_input_length_bucket{le="+Inf"} 4\n'
        b"te_request_input_length_sum 15\n"
        b"te_request_input_length_count 4\n"
        b"\n"
        b"# TYPE te_queue_size gauge\n"
        b"te_queue_size 0\n"
        b"\n"
        b"# TYPE tei_queue_age_seconds gauge\n"
        b"tei_queue_age_seconds 0\n"
        b"\n"
    )


def test_values() -> None:
    found = samples(used())
    assert found['te_request_success{method="batch"}'] == "1"
    assert found['te_request_failure{err="overloaded"}'] == "1"
    for prefix in ("te_request", "te_embed", "te_predict"):
        sums = [found[f"{prefix}_{name}_sum"] for name in DURATIONS]
        assert sums == ["0.5", "0.001", "0.002", "0.25"]
    assert found["te_batch_next_size_sum"] == "2"
    assert found["te_batch_next_tokens_sum"] == "30"
    assert (found["tei_batch_tokens_total"], found["tei_batch_computed_tokens_total"]) == ("30", "32")
    assert (found["tei_batch_budget_tokens_total"], found["tei_engine_busy_seconds_total"]) == ("64", "0.25")
    assert found["tei_engine_replacements_total"] == "1"
    assert found["tei_fidelity"] == "0.9999"
    labels = r'model_id="a\\b\"c\nd",dtype="float32",engine="fake",architecture="bert"'
    assert found[f"tei_model_info{{{labels}}}"] == "1"


def test_dropped_log_lines_are_asked_for() -> None:
    metrics, dropped = Metrics(8), [0]
    metrics.watch_log(lambda: dropped[0])
    assert b"tei_log_lines" not in metrics.render()
    dropped[0] = 3
    assert metrics.render() == b"# TYPE tei_log_lines_dropped_total counter\ntei_log_lines_dropped_total 3\n\n"


def test_queue_age_is_asked_for() -> None:
    metrics = Metrics(512)
    metrics.watch_queue(lambda: 1.5)
    assert metrics.render() == b""
    metrics.queue_size(1)
    assert samples(metrics)["tei_queue_age_seconds"] == "1.5"


def test_batch_that_is_larger_than_its_budget_is_full() -> None:
    metrics = Metrics(512)
    metrics.batch_computed(100, 100, 64)
    assert samples(metrics)["tei_batch_budget_tokens_total"] == "100"


def test_inputs_of_a_request_count_one_by_one() -> None:
    metrics = Metrics(512)
    metrics.task_started("embed", 3)
    metrics.task_succeeded("embed", 0.5, TIMINGS, 3)
    found = samples(metrics)
    assert (found["te_embed_count"], found["te_embed_success"]) == ("3", "3")
    assert (found["te_embed_duration_count"], found["te_embed_duration_sum"]) == ("3", "1.5")
    assert found['te_embed_inference_duration_bucket{le="+Inf"}'] == "3"


def test_failures() -> None:
    metrics = Metrics(512)
    metrics.request_failed(None)
    assert metrics.render() == b""
    metrics.request_failed("inference", times=3)
    assert samples(metrics) == {'te_request_failure{err="inference"}': "3"}


def test_bounds_of_durations() -> None:
    texts = [plain(bound) for bound in SECONDS]
    assert len(texts) == 35
    assert texts[:6] == [
        "0.000015000000000000002",
        "0.000022500000000000005",
        "0.00003375000000000001",
        "0.00005062500000000001",
        "0.00007593750000000002",
        "0.00011390625000000003",
    ]
    assert texts[-3:] == ["6.4715982491098405", "9.707397373664762", "14.561096060497142"]


@pytest.mark.parametrize(("limit", "last"), [(1, 1), (511, 256), (512, 512), (4096, 4096)])
def test_bounds_by_powers_of_two(limit: int, last: int) -> None:
    bounds = powers_of_two(limit)
    assert (bounds[0], bounds[-1]) == (1, last)


def test_bounds_of_input_length_end_at_524288() -> None:
    metrics = Metrics(max_input_length=10_000_000)
    metrics.input_lengths([1])
    bounds = [name for name in samples(metrics) if "bucket" in name]
    assert bounds[-2:] == ['te_request_input_length_bucket{le="524288"}', 'te_request_input_length_bucket{le="+Inf"}']


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0"), (3, "3"), (100.0, "100"), (1e22, "1" + "0" * 22), (1e-7, "0.0000001"), (0.1, "0.1")]
)
def test_plain(number: float, text: str) -> None:
    assert plain(number) == text


def test_two_servers_do_not_share_metrics() -> None:
    one, other = Metrics(512), Metrics(512)
    one.task_started("embed", 1)
    assert other.render() == b""
