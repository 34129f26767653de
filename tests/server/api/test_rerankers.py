"""Rerankers with a template, or with prompts: over HTTP and in process, against the scores of their own code."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests.extras import needs_torch
from tests.loaded import loaded_model
from tests.native.kernels import needs_kernels
from tests.server.client import Client
from text_embeddings_inference import Embedder, EncodeOptions, load
from text_embeddings_inference.errors import InputError, StartError
from text_embeddings_inference.settings import Settings
from text_embeddings_inference.tokenization import pairs

RERANKERS = Path(__file__).parents[2] / "fixtures" / "rerankers"
MODELS = RERANKERS.parent / "models"
NAMES = sorted(path.name for path in RERANKERS.iterdir())
QWEN3, LOGIT_SCORE, PROMPTS = "Qwen3-Reranker-0.6B", "st-logitscore", "ce-prompts"
TOLERANCE = 2e-4
QUERY, TEXT = "what is a python list", "A list is a mutable sequence."


def cases(name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((RERANKERS / name / "expected.json").read_text())["rerank"]
    return found


def fields(case: dict[str, Any]) -> dict[str, Any]:
    return {key: case[key] for key in ("instruction", "prompt_name") if key in case}


def serve(name: str, **options: Any) -> Client:
    settings = Settings.of(model_id=str(RERANKERS / name), dtype="float32", streams=1, **options)
    return Client(loaded_model(settings), settings)


def opened(folder: Path, **options: Any) -> Embedder:
    return load(folder, dtype="float32", threads=2, streams=1, **options)


def scores(model: Embedder, query: str, texts: list[str], **options: Any) -> list[float]:
    """Logits, in the order of the texts."""
    ranks = model.rerank(query, texts, raw_scores=True, options=EncodeOptions(**options))
    return [rank.score for rank in sorted(ranks, key=lambda rank: rank.index)]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "engine", ["openvino", pytest.param("native", marks=needs_kernels), pytest.param("torch", marks=needs_torch)]
)
def test_scores_on_every_engine(name: str, engine: str) -> None:
    with opened(RERANKERS / name, engine=engine) as model:
        for case in cases(name):
            together = scores(model, case["query"], case["texts"], **fields(case))
            alone = [scores(model, case["query"], [text], **fields(case))[0] for text in case["texts"]]
            np.testing.assert_allclose(together, case["raw_scores"], atol=TOLERANCE)
            np.testing.assert_allclose(alone, case["raw_scores"], atol=TOLERANCE)


@pytest.mark.parametrize("name", NAMES)
def test_over_http(name: str) -> None:
    with serve(name) as client:
        for case in cases(name):
            body = {"query": case["query"], "texts": case["texts"], "truncate": True} | fields(case)
            found = client.post("/rerank", body)
            assert found.status == 200, found.json
            assert [rank["index"] for rank in found.json] == case["order"]
            got = {rank["index"]: rank["score"] for rank in found.json}
            np.testing.assert_allclose([got[i] for i in range(len(got))], case["scores"], atol=1e-4)
            pairs = [[case["query"], text] for text in case["texts"]]
            found = client.post("/predict", {"inputs": pairs, "raw_scores": True} | fields(case))
            np.testing.assert_allclose([row[0]["score"] for row in found.json], case["raw_scores"], atol=TOLERANCE)


def test_instruction_by_option_is_that_of_a_request() -> None:
    case = next(case for case in cases(QWEN3) if "instruction" in case)
    with opened(RERANKERS / QWEN3, default_prompt=case["instruction"]) as model:
        np.testing.assert_allclose(scores(model, case["query"], case["texts"]), case["raw_scores"], atol=TOLERANCE)
    case = next(case for case in cases(LOGIT_SCORE) if "prompt_name" in case)
    with opened(RERANKERS / LOGIT_SCORE, default_prompt_name=case["prompt_name"]) as model:
        np.testing.assert_allclose(scores(model, case["query"], case["texts"]), case["raw_scores"], atol=TOLERANCE)


def test_default_prompt_of_the_files_may_be_replaced(tmp_path: Path) -> None:
    def default(name: str | None) -> Callable[[Path], object]:
        def change(folder: Path) -> None:
            file = folder / "config_sentence_transformers.json"
            file.write_text(json.dumps(json.loads(file.read_text()) | {"default_prompt_name": name}))

        return change

    prompted = next(case for case in cases(LOGIT_SCORE) if "prompt_name" in case)
    with opened(changed(tmp_path, LOGIT_SCORE, default("query"))) as model:
        found = scores(model, prompted["query"], prompted["texts"])
        np.testing.assert_allclose(found, prompted["raw_scores"], atol=TOLERANCE)
    case = cases(PROMPTS)[0]
    with opened(changed(tmp_path, PROMPTS, default(None))) as model:
        without = scores(model, case["query"], case["texts"])
        named = scores(model, case["query"], case["texts"], prompt_name="query")
        np.testing.assert_allclose(named, case["raw_scores"], atol=TOLERANCE)
        assert without == pytest.approx(scores(model, case["query"], case["texts"]))
        assert without != pytest.approx(named)
    with opened(RERANKERS / PROMPTS, default_prompt="") as model:
        assert scores(model, case["query"], case["texts"]) == pytest.approx(without, abs=TOLERANCE)


@pytest.mark.parametrize(
    ("name", "extra", "message"),
    [
        ("bge-reranker-v2-gemma", {"instruction": "Look."}, "`instruction` is not available"),
        (PROMPTS, {"instruction": "Look."}, "`instruction` is not available"),
        (PROMPTS, {"prompt_name": "other"}, "Available prompts"),
        (LOGIT_SCORE, {"instruction": "Look.", "prompt_name": "query"}, "give one of them"),
    ],
)
def test_what_a_model_does_not_take_is_refused(name: str, extra: dict[str, str], message: str) -> None:
    with serve(name) as client:
        found = client.post("/rerank", {"query": QUERY, "texts": [TEXT]} | extra)
    assert found.status == 422
    assert message in found.json["error"]


def test_single_texts_take_no_instruction() -> None:
    with serve(QWEN3) as client:
        found = client.post("/predict", {"inputs": TEXT, "instruction": "Look."})
        assert (found.status, "are for pairs" in found.json["error"]) == (422, True)
        assert client.post("/predict", {"inputs": TEXT}).status == 200


def test_empty_instruction_is_none() -> None:
    case = cases(QWEN3)[0]
    with opened(RERANKERS / QWEN3) as model:
        found = scores(model, case["query"], case["texts"], instruction="")
        np.testing.assert_allclose(found, case["raw_scores"], atol=TOLERANCE)


def test_default_instruction_without_a_place_stops_the_start() -> None:
    with pytest.raises(StartError, match="no place for an instruction"):
        opened(RERANKERS / "bge-reranker-v2-gemma", default_prompt="Look.")


def test_too_long_is_an_error_unless_it_may_be_cut() -> None:
    with serve(LOGIT_SCORE) as client:
        body = {"query": QUERY, "texts": [TEXT * 40], "truncate": False}
        found = client.post("/rerank", body)
        assert (found.status, found.json["error_type"]) == (422, "Validation"), found.json
        assert "must have less than 80 tokens" in found.json["error"]


def changed(tmp_path: Path, name: str, change: Callable[[Path], object]) -> Path:
    folder = tmp_path / name
    shutil.copytree(RERANKERS / name, folder)
    change(folder)
    return folder


def test_a_template_by_option_is_what_a_family_has_by_heart(tmp_path: Path) -> None:
    file = tmp_path / "pair.jinja"
    file.write_text(
        "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct "
        'provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n'
        "<Instruct>: {{ instruction or 'Given a web search query, retrieve relevant passages that answer the query' }}"
        "\n<Query>: {{ query }}\n<Document>: {{ document }}<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n\n"
    )
    for template in (str(file), "qwen3-reranker"):
        with opened(RERANKERS / QWEN3, rerank_template=template, rerank_answers="yes,no") as model:
            for case in cases(QWEN3):
                found = scores(model, case["query"], case["texts"], **fields(case))
                np.testing.assert_allclose(found, case["raw_scores"], atol=TOLERANCE)


def test_token_at_the_beginning_may_have_another_name(tmp_path: Path) -> None:
    def rename(folder: Path) -> None:
        for file in (folder / "tokenizer.json", folder / "tokenizer_config.json"):
            file.write_text(file.read_text().replace("<bos>", "<start>"))

    case = cases("bge-reranker-v2-gemma")[0]
    with opened(changed(tmp_path, "bge-reranker-v2-gemma", rename)) as model:
        np.testing.assert_allclose(scores(model, case["query"], case["texts"]), case["raw_scores"], atol=TOLERANCE)


def test_old_chat_template_in_tokenizer_config(tmp_path: Path) -> None:
    def move(folder: Path) -> None:
        config = json.loads((folder / "tokenizer_config.json").read_text())
        config["chat_template"] = (folder / "chat_template.jinja").read_text()
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
        (folder / "chat_template.jinja").unlink()

    case = cases(LOGIT_SCORE)[0]
    with opened(changed(tmp_path, LOGIT_SCORE, move)) as model:
        np.testing.assert_allclose(scores(model, case["query"], case["texts"]), case["raw_scores"], atol=TOLERANCE)


@pytest.mark.parametrize(
    "source",
    [
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m['content'] | trim }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
        "{%- for m in messages -%}<|im_start|>{{ m.role }}\n{{ m.content[0]['text'] | trim }}<|im_end|>\n{% endfor %}",
        "{{ bos_token }}{% set d = messages | selectattr('role', 'eq', 'document') | map(attribute='content') "
        "| first %}Text: {{ d.strip() }}\nQuestion: "
        "{{ (messages | selectattr('role', 'eq', 'query') | first).content.strip() }}"
        "{{ eos_token }}",
    ],
)
def test_templates_of_other_kinds(source: str, tmp_path: Path) -> None:
    """White space that they strip is stripped, parts of contents are found out, and cut documents leave the end."""

    def change(folder: Path) -> None:
        (folder / "chat_template.jinja").write_text(source)
        settings = json.loads((folder / "sentence_bert_config.json").read_text())
        del settings["modality_config"]["message"]["format"]
        (folder / "sentence_bert_config.json").write_text(json.dumps(settings))

    with opened(changed(tmp_path, LOGIT_SCORE, change)) as model:
        plain, spaced, *long = scores(model, QUERY, [TEXT, f" {TEXT}\n ", TEXT * 20, TEXT * 20 + "Berlin"])
        assert plain == pytest.approx(spaced)
        assert long[0] == pytest.approx(long[1])
        assert plain != pytest.approx(long[0])


def test_generation_prompt_is_asked_for_by_settings(tmp_path: Path) -> None:
    source = "{{ messages[0].content }} {{ messages[1].content }}{% if add_generation_prompt %} Answer:{% endif %}"

    def change(wanted: bool | None) -> Callable[[Path], object]:
        def write(folder: Path) -> None:
            (folder / "chat_template.jinja").write_text(source)
            settings = json.loads((folder / "sentence_bert_config.json").read_text())
            if wanted is not None:
                settings["processing_kwargs"] = {"chat_template": {"add_generation_prompt": wanted}}
            (folder / "sentence_bert_config.json").write_text(json.dumps(settings))

        return write

    found = {}
    for wanted in (None, False, True):
        with opened(changed(tmp_path / str(wanted), LOGIT_SCORE, change(wanted))) as model:
            found[wanted] = scores(model, QUERY, [TEXT])[0]
    assert found[None] == found[False] != found[True]


def test_without_a_template_the_tokenizer_joins_a_pair(tmp_path: Path) -> None:
    folder = changed(tmp_path, LOGIT_SCORE, lambda folder: (folder / "chat_template.jinja").unlink())
    with opened(folder) as model:
        options = EncodeOptions()
        joined = model.predict([QUERY + TEXT], raw_scores=True, options=options)[0][0].score
        assert scores(model, QUERY, [TEXT])[0] == pytest.approx(joined, abs=TOLERANCE)


def test_one_answer(tmp_path: Path) -> None:
    """The score of two answers is the difference of the scores of each."""

    def answer(true: int, false: int | None) -> Callable[[Path], object]:
        config = json.dumps({"true_token_id": true, "false_token_id": false})
        return lambda folder: (folder / "1_LogitScore" / "config.json").write_text(config)

    found = []
    for number, (true, false) in enumerate([(321, 123), (321, None), (123, None)]):
        with opened(changed(tmp_path / str(number), LOGIT_SCORE, answer(true, false))) as model:
            found.append(scores(model, QUERY, [TEXT])[0])
    assert found[0] == pytest.approx(found[1] - found[2], abs=TOLERANCE)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: (folder / "chat_template.jinja").write_text("{% for %}"), "fails: TemplateSyntaxError"),
        (
            lambda folder: (folder / "chat_template.jinja").write_text("{{ messages[0].content }}"),
            "does not show the document",
        ),
        (
            lambda folder: (folder / "chat_template.jinja").write_text(
                "{{ messages[0].content }}{{ messages[1].content | upper }}"
            ),
            "show the document",
        ),
        (
            lambda folder: (folder / "chat_template.jinja").write_text(
                "{{ messages[0].content }}{{ messages[1].content | e }}"
            ),
            "changes",
        ),
        (
            lambda folder: (folder / "chat_template.jinja").write_text("{{ ''.__class__.__mro__ }}"),
            "SecurityError",
        ),
        (lambda folder: (folder / "chat_template.jinja").write_text("{{ 'a' * 9999999999 }}"), "MemoryError"),
        (
            lambda folder: (folder / "1_LogitScore" / "config.json").write_text('{"true_token_id": "yes"}'),
            "`true_token_id` should be a token's id",
        ),
        (
            lambda folder: (folder / "1_LogitScore" / "config.json").write_text('{"true_token_id": 100000}'),
            "not in the vocabulary",
        ),
    ],
)
def test_what_is_wrong_with_a_checkpoint_is_said(
    change: Callable[[Path], object], message: str, tmp_path: Path
) -> None:
    with pytest.raises(StartError, match=message):
        opened(changed(tmp_path, LOGIT_SCORE, change))


def test_a_template_without_end_is_ended(tmp_path: Path) -> None:
    source = "{% for i in range(99999) %}" * 3 + "{% endfor %}" * 3
    endless = changed(tmp_path, LOGIT_SCORE, lambda folder: (folder / "chat_template.jinja").write_text(source))
    with pytest.raises(StartError, match="more time or memory"):
        opened(endless)


def test_a_causal_model_of_no_known_use_is_refused_unless_an_option_tells(tmp_path: Path) -> None:
    def rename(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text()) | {"architectures": ["OtherForCausalLM"]}
        (folder / "config.json").write_text(json.dumps(config))

    folder, case = changed(tmp_path, QWEN3, rename), cases(QWEN3)[0]
    with pytest.raises(StartError, match="OtherForCausalLM is a causal language model") as error:
        opened(folder)
    assert error.value.hint is not None
    assert "--rerank-template" in error.value.hint
    with opened(folder, rerank_template="qwen3-reranker") as model:
        found = scores(model, case["query"], case["texts"])
        np.testing.assert_allclose(found, case["raw_scores"], atol=TOLERANCE)
    with opened(folder, rerank_answers="no,yes") as model:
        assert len(scores(model, case["query"], case["texts"])) == len(case["texts"])


def test_family_by_rule_is_told(caplog: pytest.LogCaptureFixture) -> None:
    with opened(RERANKERS / QWEN3):
        assert "served as a reranker, qwen3-reranker" in caplog.text


def test_pooling_makes_a_causal_model_an_embedding_model(caplog: pytest.LogCaptureFixture) -> None:
    with opened(RERANKERS / QWEN3, pooling="last-token") as model:
        assert model.embed([TEXT]).shape == (1, 32)
    assert "whose vectors say something only if trained to" in caplog.text


def test_option_for_rerankers_on_another_model() -> None:
    with pytest.raises(StartError, match="of the kind embedding, and no reranker"):
        opened(MODELS / "bert", rerank_template="qwen3-reranker")
    with pytest.raises(StartError, match="has a head of its own"):
        opened(MODELS / "bert-reranker", rerank_answers="yes,no")
    with pytest.raises(StartError, match="there is no file nowhere"):
        opened(RERANKERS / QWEN3, rerank_template="nowhere.jinja")


def test_zerank_is_known_by_its_code(tmp_path: Path) -> None:
    """Its score is a fifth of one logit."""

    def name_code(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        config["auto_map"] = {"AutoConfig": "modeling_zeranker.ZEConfig"}
        (folder / "config.json").write_text(json.dumps(config))

    template = tmp_path / "zerank.jinja"
    template.write_text(
        "<|im_start|>system\n{{ query | trim }}<|im_end|>\n<|im_start|>user\n{{ document | trim }}<|im_end|>\n"
        "<|im_start|>assistant\n\n"
    )
    folder = changed(tmp_path, QWEN3, name_code)
    with opened(RERANKERS / QWEN3, rerank_template=str(template), rerank_answers="Y") as model:
        logit = scores(model, QUERY, [f" {TEXT}"])[0]
    with opened(folder) as model:
        assert scores(model, QUERY, [f"{TEXT} "])[0] == pytest.approx(logit / 5, abs=TOLERANCE)


def test_matrix_of_its_own(tmp_path: Path) -> None:
    """Scores come from `lm_head`, unless config.json ties it to the embeddings."""

    def untie(tied: bool | None) -> Callable[[Path], object]:
        def change(folder: Path) -> None:
            config = json.loads((folder / "config.json").read_text())
            del config["tie_word_embeddings"]
            config |= {} if tied is None else {"tie_word_embeddings": tied}
            (folder / "config.json").write_text(json.dumps(config))
            tensors = load_file(folder / "model.safetensors")
            tensors["lm_head.weight"] = 2 * tensors["model.embed_tokens.weight"]
            save_file(tensors, folder / "model.safetensors")

        return change

    case = cases(QWEN3)[0]
    for tied, factor in ((True, 1), (False, 2), (None, 2)):
        with opened(changed(tmp_path / str(tied), QWEN3, untie(tied))) as model:
            found = scores(model, case["query"], case["texts"])
            np.testing.assert_allclose(found, factor * np.array(case["raw_scores"]), atol=factor * TOLERANCE)


def test_capped_logits(tmp_path: Path) -> None:
    """Each logit is capped, then one is subtracted from the other."""

    def change(answers: tuple[int, int | None], cap: float | None) -> Callable[[Path], object]:
        def write(folder: Path) -> None:
            config = json.loads((folder / "config.json").read_text()) | {"final_logit_softcapping": cap}
            (folder / "config.json").write_text(json.dumps(config))
            ids = json.dumps({"true_token_id": answers[0], "false_token_id": answers[1]})
            (folder / "1_LogitScore" / "config.json").write_text(ids)

        return write

    def score(name: str, answers: tuple[int, int | None], cap: float | None) -> float:
        with opened(changed(tmp_path / name, LOGIT_SCORE, change(answers, cap))) as model:
            return scores(model, QUERY, [TEXT])[0]

    true, false = score("true", (321, None), None), score("false", (123, None), None)
    wanted = 2 * np.tanh(true / 2) - 2 * np.tanh(false / 2)
    assert score("both", (321, 123), 2.0) == pytest.approx(wanted, abs=TOLERANCE)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"architectures": ["Phi3ForCausalLM"], "model_type": "phi3"}, "of `model_type` 'phi3' is not supported"),
        ({"final_logit_softcapping": "high"}, "`final_logit_softcapping` should be"),
    ],
)
def test_what_has_no_score_is_refused(values: dict[str, Any], message: str, tmp_path: Path) -> None:
    def change(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text()) | values
        (folder / "config.json").write_text(json.dumps(config))

    with pytest.raises(StartError, match=message):
        opened(changed(tmp_path, LOGIT_SCORE, change))


def test_conversion_with_a_head_takes_its_family_s_template(tmp_path: Path) -> None:
    folder = tmp_path / "converted"
    shutil.copytree(MODELS / "qwen3-reranker", folder)
    config = json.loads((folder / "config.json").read_text()) | {"max_position_embeddings": 1000}
    (folder / "config.json").write_text(json.dumps(config))
    text = (
        "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct "
        'provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n<Instruct>: Find it'
        f"\n<Query>: {QUERY}\n<Document>: {TEXT}<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
    )
    with opened(folder) as model:
        formatted = model.predict([text], raw_scores=True)[0][0].score
        joined = scores(model, QUERY, [TEXT])[0]
    with opened(folder, rerank_template="qwen3-reranker") as model:
        assert scores(model, QUERY, [TEXT], instruction="Find it")[0] == pytest.approx(formatted, abs=TOLERANCE)
        assert model.predict([text], raw_scores=True)[0][0].score == pytest.approx(formatted, abs=TOLERANCE)
    assert joined != pytest.approx(formatted, abs=TOLERANCE)


def test_nemotron_is_known_by_its_architecture(tmp_path: Path) -> None:
    folder = tmp_path / "nemotron"
    shutil.copytree(
        MODELS / "llama_bidirec", folder, ignore=shutil.ignore_patterns("*Pooling", "*entence*", "mod*.json")
    )
    labels = {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}
    config = json.loads((folder / "config.json").read_text()) | labels
    config["architectures"] = ["LlamaBidirectionalForSequenceClassification"]
    (folder / "config.json").write_text(json.dumps(config))
    tensors = load_file(folder / "model.safetensors")
    tensors["score.weight"] = np.linspace(-1, 1, config["hidden_size"], dtype=np.float32)[None]
    save_file(tensors, folder / "model.safetensors")
    with opened(folder) as model:
        formatted = model.predict([f"question:{QUERY} \n \n passage:{TEXT}"], raw_scores=True)[0][0].score
        assert scores(model, QUERY, [TEXT])[0] == pytest.approx(formatted, abs=TOLERANCE)
        long = scores(model, QUERY, [TEXT * 30, TEXT * 30 + "no"])
        assert long[0] == pytest.approx(long[1])


@pytest.mark.parametrize("direction", ["right", "left"])
@pytest.mark.parametrize("words", ["python list ", "a ", "extraordinarily "])
def test_beginnings_of_long_texts_give_what_the_whole_would(
    words: str, direction: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [words * 1000, words * 2000 + "no", words * 41, "Berlin " + words * 999, "x" * 5000]
    options: dict[str, Any] = {"direction": direction}
    with opened(RERANKERS / LOGIT_SCORE) as model:
        found = [scores(model, query, texts, **options) for query in (QUERY, words * 1000)]
        monkeypatch.setattr(pairs, "cut_at_space", lambda text, size, direction: text)
        whole = [scores(model, query, texts, **options) for query in (QUERY, words * 1000)]
    np.testing.assert_allclose(found, whole, atol=1e-6)


def test_the_text_at_fault_is_named() -> None:
    with opened(RERANKERS / QWEN3) as model, pytest.raises(InputError, match=r"surrogate.*texts\[1\]"):
        scores(model, QUERY, [TEXT, "\ud800"])


def test_long_query_leaves_room_for_documents() -> None:
    with opened(RERANKERS / LOGIT_SCORE) as model:
        first, second = scores(model, "python list " * 100, [TEXT, "Berlin"])
        assert first != second
        with pytest.raises(InputError, match="must have less than 80 tokens"):
            scores(model, "python list " * 100, [TEXT], truncate=False)
