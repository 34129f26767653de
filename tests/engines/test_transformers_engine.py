"""A model that no file of ours covers, made by Transformers: what it gives there, alone and in padded batches."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from extras import needs_transformers
from loaded import need_of
from oracle.expected import MODELS
from text_embeddings_inference import load
from text_embeddings_inference.checkpoint import Checkpoint, open_checkpoint
from text_embeddings_inference.engines.base import Engine, Offer
from text_embeddings_inference.errors import CheckpointError, StartError, UnsupportedError
from text_embeddings_inference.loading.explain import explain
from text_embeddings_inference.loading.load import warm_up
from text_embeddings_inference.models.build import facts_of
from text_embeddings_inference.settings import Settings
from text_embeddings_inference.types import Encoding, Kind, Pooling

SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "vocab_size": 900,
}
LENGTHS = (3, 17, 1, 29)

pytestmark = pytest.mark.filterwarnings("ignore:::(transformers|torch)")


def encodings() -> list[Encoding]:
    rng = np.random.default_rng(5)
    return [Encoding(rng.integers(5, 900, length).astype(np.int32), None, 0) for length in LENGTHS]


def save(folder: Path, architecture: str, **config: Any) -> Any:
    """A random model of Transformers with the tokenizer of a fixture; the model itself is returned."""
    import torch
    import transformers

    torch.manual_seed(3)
    values = transformers.AutoConfig.for_model(**SIZES | config)
    model = getattr(transformers, architecture)(values).eval()
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(MODELS / "bert" / name, folder / name)
    return model


def make(checkpoint: Checkpoint) -> Engine:
    from text_embeddings_inference.engines.transformers import make_engine

    return make_engine(need_of(checkpoint), Offer("transformers", "float32", threads=1, streams=1))


@needs_transformers
@pytest.mark.parametrize("pooling", [Pooling.MEAN, Pooling.CLS, Pooling.LAST_TOKEN])
def test_embeddings(tmp_path: Path, pooling: Pooling) -> None:
    import torch

    model = save(tmp_path, "MegatronBertModel", model_type="megatron-bert")
    engine = make(open_checkpoint(tmp_path, facts_of, pooling=pooling))
    output = engine.run(engine.arrange(encodings()), tokens=True)
    assert (engine.dimensions, engine.vocabulary) == (32, 900)
    assert output.tokens is not None
    for row, encoding in enumerate(encodings()):
        with torch.no_grad():
            hidden = model(torch.from_numpy(encoding.input_ids.astype(np.int64))[None]).last_hidden_state[0].numpy()
        pooled = {Pooling.MEAN: hidden.mean(0), Pooling.CLS: hidden[0], Pooling.LAST_TOKEN: hidden[-1]}
        assert np.abs(output.tokens[row, : len(encoding)] - hidden).max() <= 1e-5
        assert np.abs(output.pooled[row] - pooled[pooling]).max() <= 1e-5
    engine.close()


@needs_transformers
def test_in_process_and_classifiers(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    labels = {"id2label": {0: "no", 1: "yes"}, "label2id": {"no": 0, "yes": 1}}
    save(tmp_path, "MegatronBertForSequenceClassification", model_type="megatron-bert", **labels)
    with load(tmp_path, dtype="float32", engine="auto", threads=1) as model:
        assert (model.info.engine, model.info.kind) == ("transformers", Kind.CLASSIFIER)
        [scores] = model.predict(["a text"])
        assert {score.label for score in scores} == {"no", "yes"}
        [again, _] = model.predict(["a text", "and a longer text beside it"])
        assert np.allclose([s.score for s in scores], [s.score for s in again], atol=1e-5)
    assert "it is run by Transformers, which is slower" in caplog.text


@needs_transformers
def test_missing_tensors_are_told(tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    save(tmp_path, "MegatronBertModel", model_type="megatron-bert")
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["encoder.ln.weight"]
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"no tensor `encoder\.ln\.weight`"):
        load(tmp_path, dtype="float32")


def unknown(folder: Path) -> Path:
    shutil.copytree(MODELS / "bert", folder, dirs_exist_ok=True)
    config = json.loads((folder / "config.json").read_text())
    code = {"model_type": "of-the-future", "auto_map": {"AutoConfig": "code.Config", "AutoModel": "code.Model"}}
    (folder / "config.json").write_text(json.dumps(config | code))
    (folder / "code.py").write_text("raise SystemExit('remote code was run')")
    return folder


@needs_transformers
@pytest.mark.parametrize(
    ("architecture", "model_type", "positions"),
    [
        ("MegatronBertModel", "megatron-bert", 64),
        ("XLMRobertaXLModel", "xlm-roberta-xl", 62),  # counts from the position after that of padding
        ("BigBirdModel", "big_bird", 64),
    ],
)
def test_no_input_is_longer_than_a_table_of_positions(
    tmp_path: Path, architecture: str, model_type: str, positions: int
) -> None:
    pad = 64 - positions - 1 if positions < 64 else 0
    save(tmp_path, architecture, model_type=model_type, max_position_embeddings=64, pad_token_id=pad)
    (tmp_path / "sentence_bert_config.json").write_text('{"max_seq_length": 128}')
    checkpoint = open_checkpoint(tmp_path, facts_of, pooling=Pooling.CLS)
    assert checkpoint.max_input_length == positions
    with pytest.raises(UnsupportedError, match=f"inputs of {positions + 1} tokens are longer than the {positions} pos"):
        make(replace(checkpoint, max_input_length=positions + 1))
    engine = make(checkpoint)
    longest = Encoding(np.full(positions, 5, np.int32), None, 0)
    assert np.isfinite(engine.run(engine.arrange([longest])).pooled).all()


@needs_transformers
def test_remote_code_is_not_run(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match=r"Transformers can't load `model_type` 'of-the-future'"):
        load(unknown(tmp_path), dtype="float32")


def save_nested(folder: Path) -> Any:
    """A model for texts and images, whose config.json has the one's sizes in `text_config`."""
    import torch
    import transformers

    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 48}
    config = transformers.Gemma3Config(
        text_config=sizes | {"vocab_size": 900, "num_key_value_heads": 2, "head_dim": 8},
        vision_config=sizes | {"hidden_size": 16, "image_size": 28, "patch_size": 14},
        mm_tokens_per_image=4,
    )
    torch.manual_seed(3)
    model = transformers.Gemma3Model(config).eval()
    model.save_pretrained(folder)
    return model


ENCODER_DECODER = {
    "d_model": 32,
    **{f"{part}_{size}": n for part in ("encoder", "decoder") for size, n in [("layers", 2), ("attention_heads", 4)]},
    **{f"{part}_ffn_dim": 48 for part in ("encoder", "decoder")},
    "max_position_embeddings": 64,
}
MT5 = {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4}


def complete(folder: Path, **config: Any) -> Checkpoint:
    """What a folder that `save_nested` wrote lacks, or other values in its config.json."""
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(MODELS / "bert" / name, folder / name)
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 48}')
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(values | config))
    pooling = None if "id2label" in config else Pooling.MEAN
    return open_checkpoint(folder, facts_of, pooling=pooling)


def check_rows(checkpoint: Checkpoint, reference: Callable[[Any], Any]) -> None:
    """Each sequence of a padded batch gets what the model gives for it alone; `--explain` knows the same sizes."""
    import torch

    from text_embeddings_inference.engines.transformers import inspect

    engine = make(checkpoint)
    warm_up(engine)
    output = engine.run(engine.arrange(encodings()), tokens=True)
    assert output.tokens is not None
    for row, encoding in enumerate(encodings()):
        with torch.no_grad():
            hidden = reference(torch.from_numpy(encoding.input_ids.astype(np.int64))[None]).last_hidden_state[0].numpy()
        assert np.abs(output.tokens[row, : len(encoding)] - hidden).max() <= 1e-5
    known = inspect(need_of(checkpoint))
    assert (known.dimensions, known.vocabulary) == (engine.dimensions, engine.vocabulary) == (32, 900)
    engine.close()


@needs_transformers
def test_sizes_in_a_nested_config(tmp_path: Path) -> None:
    model = save_nested(tmp_path)
    check_rows(complete(tmp_path), model)


@needs_transformers
def test_of_an_encoder_decoder_the_states_that_transformers_gives(tmp_path: Path) -> None:
    model = save(tmp_path, "BartModel", model_type="bart", **ENCODER_DECODER)
    check_rows(complete(tmp_path), model)


@needs_transformers
@pytest.mark.parametrize(("architecture", "model_type"), [("MT5Model", "mt5"), ("UMT5Model", "umt5")])
def test_of_t5s_relatives_the_encoder(tmp_path: Path, architecture: str, model_type: str) -> None:
    """As sentence-transformers takes them."""
    model = save(tmp_path, architecture, model_type=model_type, **MT5)
    check_rows(complete(tmp_path), model.encoder)


def explained(folder: Path, **options: Any) -> str:
    """The one problem that `--explain` finds, which a start fails of too."""
    [problem] = explain(Settings.of(model_id=str(folder), **options)).problems
    with pytest.raises(StartError) as caught:
        load(folder, dtype="float32", **options)
    assert problem.message == caught.value.args[0]
    return problem.message


@needs_transformers
def test_classifiers_that_look_for_the_end_of_the_text_are_refused(tmp_path: Path) -> None:
    save(tmp_path, "BartForSequenceClassification", model_type="bart", **ENCODER_DECODER)
    complete(tmp_path, id2label={"0": "no", "1": "yes"}, label2id={"no": 0, "yes": 1})
    assert "classifiers of `model_type` 'bart' are not supported" in explained(tmp_path)


@needs_transformers
def test_models_that_do_not_take_texts_alone_are_refused(tmp_path: Path) -> None:
    import transformers

    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 48}
    clip = transformers.CLIPConfig(text_config=sizes, vision_config=sizes)
    transformers.CLIPModel(clip).save_pretrained(tmp_path / "clip")
    complete(tmp_path / "clip")
    assert "CLIPModel of Transformers has no table of token ids" in explained(tmp_path / "clip", pooling="mean")
    save(tmp_path / "whisper", "WhisperModel", model_type="whisper", num_mel_bins=8, pad_token_id=0, **ENCODER_DECODER)
    complete(tmp_path / "whisper")
    assert "takes `input_features`, not texts" in explained(tmp_path / "whisper", pooling="mean")


@needs_transformers
def test_what_transformers_does_not_know_is_explained(tmp_path: Path) -> None:
    assert "Transformers can't load `model_type` 'of-the-future'" in explained(unknown(tmp_path), pooling="mean")


@needs_transformers
def test_integer_weights_are_refused(tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    save(tmp_path, "MegatronBertModel", model_type="megatron-bert")
    tensors = load_file(tmp_path / "model.safetensors")
    name = "encoder.layer.0.attention.self.query.weight"
    tensors[name] = (tensors[name] * 127).astype(np.int8)
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert f"tensor `{name}` in {tmp_path / 'model.safetensors'} is I8" in explained(tmp_path, pooling="mean")
