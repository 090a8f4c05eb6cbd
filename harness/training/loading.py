"""Weights from a file: official releases, files of other projects, and checkpoints of our own runs.

    weights = weights_in("flatten_swin_t.pth")
    report = load_weights(weights, model, spec)    # strict: a missing or unexpected tensor is an error that names it

Files wrap their tensors in many ways: {"model": ...}, {"model_state_dict": ...}, {"state_dict_ema": ...}, and in names
that begin with `module.` (DistributedDataParallel), `model.` (Lightning) or `backbone.`. Instead of a list of names,
the stem of a model is looked for: the patch embedding with which each of ours begins, as does each of timm's that is
read here. The entries and the prefix that lead to a stem are what its model is wrapped in.
"""

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, nn

import results
from backbones import BackboneSpec, from_official
from harness.cells import RunWeights, Weights
from harness.training import checkpoints
from harness.training.files import read_file
from results.wording import and_more

RAW_WRAPPERS = ("model", "state_dict", "module", "net", "model_state_dict")
"""Entries of which the first one is taken, whatever else a file has."""
EMA_WRAPPERS = ("ema", "model_ema", "state_dict_ema", "ema_state_dict")
AVERAGE = re.compile(r"(^|[._-])(ema|swa|averaged?)([._-]|$)")
"""What the entries and prefixes of a moving average have in their name."""
STEM = re.compile(r"(?:(.*?)\.)?(?:patch_embed1?|stage1_conv_embed)\.")
"""The first layer of a model, behind the prefix of all its names."""
INSERTED = re.compile(r"\b(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
"""What torch.compile and its like put into names, wherever they wrap a module."""
DEEPEST = 3  # entries of entries
ABOUT = {"backbone", "task"}


def weights_in(path: str | Path, *, ema: bool = False, strict: bool = True) -> Weights:
    """Return the weights in a file, or in a run folder's newest checkpoint. Raises ValueError if there are none."""
    path = Path(path)
    if path.is_dir():
        found = checkpoints.all_of(path)
        if not found:
            raise ValueError(f"the folder {path} has no checkpoint of a run (checkpoint-<updates>.pt)")
        path = found[0]
    try:
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()[:16]
    except OSError as problem:
        raise ValueError(f"cannot read the weights {path}: {problem.strerror}") from problem
    return Weights(digest=digest, ema=ema, strict=strict, path=str(path.resolve()))


def located(weights: Weights | RunWeights, out: Path) -> Weights:
    """Return the weights in a file; those of a run are below `out`, the folder in which the training is recorded.

    Raises ValueError, in one line that names the training and its state, unless it is recorded as done.
    """
    if isinstance(weights, Weights):
        return weights
    needed = f"needs the training {weights.label} ({weights.run}), which"
    folder = out / weights.run
    if not (out / f"{weights.run}.json").exists():
        begun = "has begun and is not done yet" if checkpoints.all_of(folder) else "is not recorded"
        raise ValueError(f"{needed} {begun} in {out}")
    try:
        record = results.read(out / f"{weights.run}.json")
    except ValueError as problem:
        raise ValueError(f"{needed} has no intact record: {problem}") from problem
    if record.status != "done":
        how = {"failed": "failed", "oom": "ran out of memory"}[record.status]
        raise ValueError(f"{needed} {how}: {record.reason or 'no error was recorded'}")
    found = [folder / checkpoints.BEST] if weights.which == "best" else checkpoints.all_of(folder)[:1]
    if not found or not found[0].exists():
        raise ValueError(f"{needed} is done, but its {weights.which} weights are no longer in {folder}")
    return weights_in(found[0], ema=weights.ema, strict=weights.strict)


class LoadReport(NamedTuple):
    """The names of tensors that did not fit; all lists are empty after a strict load."""

    missing: list[str]  # in the model, not in the file
    unexpected: list[str]  # in the file, not in the model
    reshaped: list[str]  # in both, with different shapes

    @property
    def head(self) -> bool:
        """Whether the classifier is complete; otherwise it is as initialised, wholly or in part."""
        return not any(name.startswith("head.") for name in (*self.missing, *self.reshaped))

    def __str__(self) -> str:
        parts = (("missing", self.missing), ("unexpected", self.unexpected), ("of another shape", self.reshaped))
        texts = [f"{len(names)} {label} ({and_more(names)})" for label, names in parts if names]
        return "; ".join(texts) or "every tensor fits"


def load_weights(weights: Weights, model: nn.Module, spec: BackboneSpec) -> LoadReport:
    """Load a file into the model of `spec`; position tables are resized where the resolution differs.

    Raises ValueError, in one line, for a file that cannot be read or has changed since it was named, and if `strict`
    for one that does not fit.
    """
    return load_as(weights, model, spec.name, lambda state: from_official(state, spec, strict=weights.strict))


def load_as(
    weights: Weights, model: nn.Module, name: str, convert: Callable[[dict[str, Tensor]], dict[str, Tensor]]
) -> LoadReport:
    """Load a file into a model, which errors call `name`; `convert` renames the file's tensors to the model's names.

    Raises ValueError as `load_weights` does, and where `convert` does.
    """
    if weights_in(weights.path).digest != weights.digest:
        raise ValueError(f"{weights.path} has changed since it was named: its hash was {weights.digest}")
    content = tensors_in(read_file(weights.path), weights)
    try:
        state = convert(content)
    except ValueError as problem:
        raise ValueError(f"{weights.path} does not fit {name}: {problem}") from problem
    ours = model.state_dict()
    if whole := [
        key for key in ours if key in state and ours[key].is_floating_point() and not state[key].is_floating_point()
    ]:
        raise ValueError(
            f"{weights.path} does not fit {name}: {whole[0]} holds {str(state[whole[0]].dtype).removeprefix('torch.')} "
            "and no fractions, as in a quantised model, whose scales are elsewhere: take the weights as trained"
        )
    report = LoadReport(
        missing=[key for key in ours if key not in state],
        unexpected=[key for key in state if key not in ours],
        reshaped=[
            f"{key} {tuple(state[key].shape)} for {tuple(value.shape)}"
            for key, value in ours.items()
            if key in state and state[key].shape != value.shape
        ],
    )
    if any(report) and weights.strict:
        heads = [len(each["head.weight"]) for each in (state, ours) if "head.weight" in each]
        classes = f"--set num_classes={heads[0]} takes its head; " if len(set(heads)) == 2 else ""
        raise ValueError(
            f"{weights.path} does not fit {name}: {report}; {classes}"
            "--allow-partial-weights loads what fits and leaves the rest as initialised"
        )
    fitting = {key: value for key, value in state.items() if key in ours and value.shape == ours[key].shape}
    if not fitting:
        raise ValueError(f"{weights.path} does not fit {name}: none of its tensors does ({report})")
    model.load_state_dict(ours | fitting)
    return report


def read_about(weights: Weights) -> dict[str, Any] | None:
    """Return `backbone` and `task` of a run's checkpoint, as plain JSON; None for other files."""
    content = read_file(weights.path)
    return {name: content[name] for name in ABOUT} if content.keys() >= ABOUT else None


class _Found(NamedTuple):
    """The tensors of one model in a file, by the names that it gives them; `place` has the entries that lead there."""

    place: tuple[str, ...]
    prefix: str
    tensors: dict[str, Tensor]

    @property
    def label(self) -> str:
        """For people: the entries and the prefix, but for those by which a module is wrapped in any case."""
        parts = [*self.place, *self.prefix.split(".")]
        return ".".join(part for part in parts if part not in ("", "module")) or "the top"

    @property
    def average(self) -> bool:
        return AVERAGE.search(self.label.lower()) is not None

    def saved_from(self, path: str) -> str:
        """Return the code that makes a file of this model alone."""
        state = f"read_file({path!r})" + "".join(f"[{entry!r}]" for entry in self.place)
        if self.prefix:
            state = f"{{n: t for n, t in {state}.items() if n.startswith({f'{self.prefix}.'!r})}}"
        return f"torch.save({state}, 'tensors.pth')"


def models_in(content: Mapping[str, Any]) -> tuple[list[_Found], list[_Found]]:
    """Return the models of which a file has the weights: those as trained, and those that are moving averages."""
    states = list(_states(content, ()))
    found = [model for place, state in states for model in _by_stem(place, state)]
    if not found:  # something else, or a part of a model
        found = [_Found(place, "", {_without_module(name): state[name] for name in state}) for place, state in states]
    raw, averages = ([model for model in found if model.average == kind] for kind in (False, True))
    return raw, averages


def tensors_in(content: Mapping[str, Any], weights: Weights) -> dict[str, Tensor]:
    """Return the tensors by name, from whatever a file wraps them in, without the prefix of a wrapped model.

    Raises ValueError where the file does not have the requested kind of weights, or has those of several models.
    """
    raw, averages = models_in(content)
    if weights.ema and not averages:
        raise ValueError(
            f"{weights.path} has no moving average of weights ({', '.join(EMA_WRAPPERS)}): leave out --ema"
        )
    if not raw and averages and not weights.ema:
        raise ValueError(f"{weights.path} has weights as a moving average only ({averages[0].label}): pass --ema")
    wrappers, found = (EMA_WRAPPERS, averages) if weights.ema else (RAW_WRAPPERS, raw)
    if not found:
        raise ValueError(f"{weights.path} has no tensors by name; at the top: {and_more(list(map(str, content)))}")
    for wrapper in wrappers:
        if inside := [model for model in found if model.place[:1] == (wrapper,)]:
            found = inside
            break
    if len(found) > 1:
        labels = [model.label for model in found]
        raise ValueError(
            f"{weights.path} has the weights of several models ({and_more(labels)}): save one of them alone, as in: "
            f"from harness.training.files import read_file; {found[0].saved_from(weights.path)}"
        )
    return found[0].tensors


def _states(content: Mapping[Any, Any], place: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], dict[str, Tensor]]]:
    """Yield each mapping that has tensors by name, with the entries that lead to it."""
    if state := {
        INSERTED.sub("", name): value
        for name, value in content.items()
        if isinstance(name, str) and isinstance(value, Tensor)
    }:
        yield place, state
    if len(place) < DEEPEST:
        for name, value in content.items():
            if isinstance(name, str) and isinstance(value, Mapping):
                yield from _states(value, (*place, name))


def _by_stem(place: tuple[str, ...], state: Mapping[str, Tensor]) -> Iterator[_Found]:
    """Yield each model whose stem is in a state: all names behind its prefix, or all there are if it has none."""
    prefixes = dict.fromkeys(stem[1] or "" for name in state if (stem := STEM.match(name)))
    for prefix in [""] if "" in prefixes else prefixes:
        start = f"{prefix}." if prefix else ""
        yield _Found(
            place, prefix, {name[len(start) :]: value for name, value in state.items() if name.startswith(start)}
        )


def _without_module(name: str) -> str:
    while name.startswith("module."):
        name = name.removeprefix("module.")
    return name
