"""The modules of a sentence-transformers checkpoint: `modules.json` and the folders it names.

Format: https://sbert.net/docs/package_reference/sentence_transformer/modules.html. A module is known by the last part
of its type, so that the names of all versions of the library fit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path, PurePosixPath
from typing import Any

from ..errors import CheckpointError, UnsupportedError
from .files import DOWNLOAD_AGAIN
from .json_files import describe, is_integer, read_json, read_object
from .router import ROUTER_FILES, Entry, read_routes
from .tensors.weights import Weights, open_weight_files

MODULES = "modules.json"

HEAD_FILES = ("sparse_linear.pt", "colbert_linear.pt")
"""The heads that bge-m3 has beside its modules: a lexical weight, and a vector for late interaction, of each token."""

DENSE_FILES = ("model.safetensors", "pytorch_model.bin")

ACTIVATIONS = {
    "Identity": "identity",
    "Tanh": "tanh",
    "ReLU": "relu",
    "GELU": "gelu",
    "SiLU": "silu",
    "Sigmoid": "sigmoid",
}
"""The classes of torch.nn a Dense module may name, and what we call them. `gelu` is the exact form."""

# Module -> the modules it may follow (None: it comes first). Dropout is for training and changes nothing; Normalize
# only comes last: vectors are normalized by request. FlexibleQuantizer comes with the code of pplx-embed.
# TokenDense and TokenNormalize are our names for modules that take the tokens' vectors (`ON_TOKENS`).
PREDECESSORS: dict[str, tuple[str | None, ...]] = {
    "Transformer": (None,),
    "MLMTransformer": (None,),
    "StaticEmbedding": (None,),
    "SparseStaticEmbedding": (None,),
    "Pooling": ("Transformer", "TokenDense"),
    "SpladePooling": ("Transformer", "MLMTransformer"),
    "Dense": ("Pooling", "StaticEmbedding", "Dense"),
    "TokenDense": ("Transformer", "TokenDense"),
    "MultiVectorMask": ("Transformer", "TokenDense", "TokenNormalize"),
    "TokenNormalize": ("TokenDense", "MultiVectorMask"),
    "Dropout": ("Transformer", "TokenDense", "Pooling", "Dense"),
    "FlexibleQuantizer": ("Pooling",),
    "Normalize": ("Pooling", "StaticEmbedding", "Dense", "Normalize"),
    "LogitScore": ("Transformer",),
}

ON_TOKENS = {"Dense": "TokenDense", "Normalize": "TokenNormalize"}
"""What a module is called here where nothing is pooled before it: there are only the tokens' vectors to take."""

BEFORE_POOLING = ("Transformer", "TokenDense", "MultiVectorMask", "TokenNormalize")
LAST_OF_LATE = ("TokenDense", "MultiVectorMask", "TokenNormalize")
"""A model whose modules end so pools nothing."""

FIELDS = {
    "Transformer": "transformer",
    "MLMTransformer": "transformer",
    "StaticEmbedding": "transformer",
    "SparseStaticEmbedding": "transformer",
    "Pooling": "pooling",
    "SpladePooling": "splade",
    "MultiVectorMask": "mask",
    "LogitScore": "logit_score",
}
"""Module -> the field of `ModulePaths` that has its path."""

LISTS = {"Dense": "dense", "TokenDense": "token_dense"}
"""The same of modules of which there may be several."""


ROUTERS = ("Router", "Asym")


class Static(StrEnum):
    """Modules that are a table by token in place of a Transformer."""

    VECTORS = "StaticEmbedding"
    WEIGHTS = "SparseStaticEmbedding"


@dataclass(frozen=True, slots=True)
class Router:
    """The sides of a model that takes its texts different ways."""

    sides: Mapping[str, ModulePaths]
    """The modules of each, by its name."""
    names: Mapping[str, str]
    """From what a request calls a text's part to the side."""
    default: str
    """The side of texts of which nothing is said."""
    own: str
    """The side that these modules are."""


@dataclass(frozen=True, slots=True)
class ModulePaths:
    """Where the modules lie, relative to the checkpoint's folder ("" is the folder itself)."""

    transformer: str = ""
    """Folder of config, tokenizer and weights."""

    pooling: str | None = None
    splade: str | None = None
    dense: tuple[str, ...] = ()
    """In the order in which they are applied to the pooled vector."""

    token_dense: tuple[str, ...] = ()
    """In the order in which they are applied to each token's vector, before pooling."""

    quantizes: bool = False
    """Whether vectors become whole numbers in the end."""

    late: bool = False
    """Whether tokens get vectors, and are not pooled."""

    mask: str | None = None
    """Of a model for late interaction: which tokens' vectors count."""

    normalizes_tokens: bool = False
    """Whether the tokens' vectors are brought to length 1."""

    logit_score: str | None = None
    """Of a reranker that is a causal language model: which tokens' logits make its score."""

    static: Static | None = None
    """What stands in place of the Transformer."""

    router: Router | None = None
    """Of a model with several sides; these modules are one of them."""

    def replace_dense(self, path: str | None) -> ModulePaths:
        """`path` in place of the only Dense module's; unchanged when there is not exactly one."""
        if path is None or len(self.all_dense) != 1:
            return self
        return replace(self, dense=(path,)) if self.dense else replace(self, token_dense=(path,))

    @property
    def all_dense(self) -> tuple[str, ...]:
        """Those for tokens first."""
        return (*self.token_dense, *self.dense)


@dataclass(frozen=True, slots=True, eq=False)
class Dense:
    """A linear layer, activation(x @ weight.T + bias), whose tensors are read when the model is built.

    With a residual, x is added to that or, where the widths differ, x @ residual.T.
    """

    weights: Weights
    """The file's tensors: `weight` `[outputs, inputs]` and, if it has one, `bias` `[outputs]`, behind the prefix;
    `residual.weight` `[outputs, inputs]` where a residual is projected."""

    prefix: str
    """What the names of weight and bias begin with."""

    has_bias: bool
    activation: str
    """A value of `ACTIVATIONS`."""

    has_residual: bool = False

    @property
    def inputs(self) -> int:
        return self.weights.shape(f"{self.prefix}weight")[1]

    @property
    def outputs(self) -> int:
        return self.weights.shape(f"{self.prefix}weight")[0]


def read_module_paths(folder: Path) -> ModulePaths:
    """The modules of `folder/modules.json`; a single Transformer when there is none.

    Raises `CheckpointError` when the file is damaged, `UnsupportedError` for a module we don't have or an order of
    modules we can't follow.
    """
    if not (folder / MODULES).exists():
        return ModulePaths(static=Static.VECTORS) if _is_model2vec(folder) else ModulePaths()
    modules = read_json(folder, MODULES)
    if not isinstance(modules, list):
        raise CheckpointError(f"Failed to parse `modules.json` in {folder}: expected a list, got {describe(modules)}")
    entries = [_read_entry(folder, module) for module in modules]
    place = next((place for place, entry in enumerate(entries) if _last_part(entry) in ROUTERS), None)
    return _follow(folder, entries) if place is None else _read_sides(folder, entries, place)


def router_files(folder: Path) -> tuple[str, ...]:
    """Where the Router that `folder/modules.json` names may be described; () if it names none."""
    if not (folder / MODULES).exists():
        return ()
    modules = read_json(folder, MODULES)
    entries = [_read_entry(folder, module) for module in modules] if isinstance(modules, list) else []
    path = next((entry.path for entry in entries if _last_part(entry) in ROUTERS), None)
    return () if path is None else tuple(str(PurePosixPath(path) / name) for name in ROUTER_FILES)


def _read_sides(folder: Path, entries: list[Entry], place: int) -> ModulePaths:
    """The modules of the side that is the model's main one: the default, unless that is a table and another is not.

    place: of the Router; what stands before and after it belongs to each of its routes.
    """
    routes = read_routes(folder, entries[place].path)
    sides = {}
    for name, inner in routes.modules.items():
        sides[name] = _follow(folder, [*entries[:place], *map(_inside(folder), inner), *entries[place + 1 :]])
    transformers = [name for name, side in sides.items() if side.static is None]
    own = routes.default if routes.default in transformers or not transformers else transformers[0]
    return replace(sides[own], router=Router(sides, routes.names, routes.default, own))


def _is_model2vec(folder: Path) -> bool:
    if not (folder / "config.json").exists():
        return False
    return read_object(folder, "config.json").get("model_type") == "model2vec"


def _follow(folder: Path, entries: list[Entry]) -> ModulePaths:
    """One module after the other. Raises `UnsupportedError` for a module or an order that we don't have."""
    found: dict[str, Any] = dict.fromkeys(LISTS.values(), ())
    after: str | None = None
    for entry in entries:
        path, kind, name = *entry, _name(entry, after)
        if after not in PREDECESSORS.get(name, ()):
            place = f"after {after}" if after else "as the first module"
            raise UnsupportedError(f"`modules.json` in {folder}: {kind} (path `{path}`) is not supported {place}")
        if name in FIELDS:
            found[FIELDS[name]] = path
        elif name in LISTS:
            found[LISTS[name]] = (*found[LISTS[name]], path)
        if name in list(Static):
            found["static"] = Static(name)
        elif name == "FlexibleQuantizer":
            found["quantizes"] = True
        elif name == "TokenNormalize":
            found["normalizes_tokens"] = True
        if name != "Dropout":
            after = name
    if "transformer" not in found:
        raise CheckpointError(f"`modules.json` in {folder} lists no Transformer")
    return ModulePaths(**found, late=after in LAST_OF_LATE)


def read_dense(folder: Path, path: str, *, on_tokens: bool = False) -> Dense:
    """The Dense module in `folder/path`. on_tokens: whether it takes the tokens' vectors.

    Raises `CheckpointError` when a file is missing or does not fit its config, `UnsupportedError` for a config that
    asks for more than a linear layer with a known activation.
    """
    name = f"{path}/config.json"
    values = read_object(folder, name)
    sizes: list[Any] = [values.get("out_features"), values.get("in_features")]
    if not all(is_integer(size) and size > 0 for size in sizes):
        problem = f"`in_features` and `out_features` should be positive integers, are {sizes[1]} and {sizes[0]}"
        raise CheckpointError(f"Failed to parse `{name}` in {folder}: {problem}")
    has_bias = _flag(folder, name, values, "bias", default=True)
    has_residual = _flag(folder, name, values, "use_residual", default=False)
    # Nothing is pooled before a module on tokens: older versions left its input's name at the default all the same.
    inputs = (None, "sentence_embedding", *(["token_embeddings"] if on_tokens else []))
    for key in ("module_input_name", "module_output_name"):
        if values.get(key) not in inputs:
            raise UnsupportedError(f"`{key}` of `{name}` in {folder} is {describe(values[key])}: not supported")
    activation = _activation(folder, name, values.get("activation_function"))

    file = next((folder / path / file for file in DENSE_FILES if (folder / path / file).exists()), None)
    if file is None:
        problem = (
            f"no weights of the Dense module in {folder / path}: looked for {', '.join(f'`{f}`' for f in DENSE_FILES)}"
        )
        raise CheckpointError(problem, hint=DOWNLOAD_AGAIN)
    wanted = {"linear.weight": tuple(sizes)} | ({"linear.bias": (sizes[0],)} if has_bias else {})
    if has_residual and sizes[0] != sizes[1]:
        wanted["residual.weight"] = tuple(sizes)
    weights = open_weight_files(file)
    _check_tensors(file, weights, wanted, name)
    return Dense(weights, "linear.", has_bias, activation, has_residual)


def _check_tensors(file: Path, weights: Weights, wanted: dict[str, tuple[int, ...]], config: str) -> None:
    """Raises `CheckpointError` unless the file holds the tensors that its config asks for."""
    if set(weights) != set(wanted):
        raise CheckpointError(f"{file} should hold {', '.join(wanted)}; it holds {', '.join(weights) or 'nothing'}")
    for tensor, shape in wanted.items():
        if weights.shape(tensor) != shape:
            problem = f"tensor `{tensor}` has shape {weights.shape(tensor)}, `{config}` says {shape}"
            raise CheckpointError(f"{file}: {problem}")


def _flag(folder: Path, name: str, values: dict[str, Any], key: str, *, default: bool) -> bool:
    value = values.get(key, default)
    if not isinstance(value, bool):
        raise CheckpointError(
            f"Failed to parse `{name}` in {folder}: `{key}` should be true or false, is {describe(value)}"
        )
    return value


def read_dense_chain(folder: Path, paths: tuple[str, ...], *, on_tokens: bool = False) -> tuple[Dense, ...]:
    """Dense modules, of which each takes what the one before it gives."""
    dense = tuple(read_dense(folder, path, on_tokens=on_tokens) for path in paths)
    for before, after, path in zip(dense, dense[1:], paths[1:], strict=False):
        if before.outputs != after.inputs:
            problem = f"takes {after.inputs} values, the one before it gives {before.outputs}"
            raise CheckpointError(f"the Dense module `{path}` in {folder} {problem}")
    return dense


def read_head(root: Path, name: str) -> Dense | None:
    """The linear layer stored as `root/name` (`HEAD_FILES`), None if there is none. Raises `CheckpointError`."""
    file = root / name
    if not file.exists():
        return None
    weights = open_weight_files(file)
    shapes = {name: weights.shape(name) for name in weights}
    if shapes.keys() != {"weight", "bias"} or len(shapes["weight"]) != 2 or shapes["weight"][:1] != shapes["bias"]:
        raise CheckpointError(f"{file} should hold `weight` and `bias` of a linear layer", hint=DOWNLOAD_AGAIN)
    return Dense(weights, "", has_bias=True, activation="identity")


def _activation(folder: Path, name: str, value: Any) -> str:
    if value is None:
        return "identity"
    package, _, cls = str(value).rpartition(".")
    if package.partition(".")[0] != "torch" or cls not in ACTIVATIONS:
        raise UnsupportedError(
            f"`activation_function` of `{name}` in {folder} is {describe(value)}: not supported",
            hint=f"supported: {', '.join(ACTIVATIONS)} of torch.nn",
        )
    return ACTIVATIONS[cls]


def _read_entry(folder: Path, module: Any) -> Entry:
    """An entry of `modules.json`."""
    path, kind = (module.get("path"), module.get("type")) if isinstance(module, dict) else (None, None)
    if not isinstance(path, str) or not isinstance(kind, str):
        raise CheckpointError(f"Failed to parse `modules.json` in {folder}: no `path` and `type` in {describe(module)}")
    return _inside(folder)(Entry(path, kind))


def _inside(folder: Path) -> Callable[[Entry], Entry]:
    """Raises `CheckpointError` for a module whose path leads out of the checkpoint."""

    def check(entry: Entry) -> Entry:
        if PurePosixPath(entry.path).is_absolute() or ".." in PurePosixPath(entry.path).parts:
            raise CheckpointError(f"`modules.json` in {folder}: path `{entry.path}` is outside of the checkpoint")
        return entry

    return check


def _last_part(entry: Entry) -> str:
    return entry.kind.rpartition(".")[2]


def _name(entry: Entry, after: str | None) -> str:
    """The last part of the module's type, but see `ON_TOKENS`. after: the name of the module before it."""
    name = _last_part(entry)
    on_tokens = after in BEFORE_POOLING or (name == "Dense" and entry.kind.startswith("pylate."))
    return ON_TOKENS.get(name, name) if on_tokens else name
