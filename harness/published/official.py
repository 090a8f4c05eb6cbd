"""Official weights: the files published for each preset, and how their repositories evaluate them.

    found, missing = find(Path("weights"))
    OFFICIAL["swin_t"].preprocessing     # as in microsoft/Swin-Transformer

Files in a folder are recognised by their names alone; `backbones.from_official` converts the state in a file to ours.
"""

from dataclasses import dataclass
from pathlib import Path

from backbones import preset
from harness.cells import Cell, DataSource, Evaluate, Preprocessing, Weights
from harness.cells.source import IMAGENET
from harness.published.recipes import SHORT_SIDE, SHORT_SIDE_248, SHORT_SIDE_WHOLE, SQUASH, SQUASH_WHOLE
from harness.training.files import read_file
from harness.training.loading import models_in, weights_in


@dataclass(frozen=True)
class Official:
    """The published weights of a preset, trained on ImageNet-1K alone.

    files: names that are recognised, first the published one, as far as it is known; upper case and "-" for "_" are
        recognised too.
    preprocessing: that of the evaluation in its repository, which gave the published accuracy.
    ema: whether that accuracy is of the moving average ("state_dict_ema"), if a file has both weights and average.
    source: where it is linked.
    """

    files: tuple[str, ...]
    preprocessing: Preprocessing
    ema: bool
    source: str


def _flatten(names: tuple[str, ...], preprocessing: Preprocessing = SQUASH) -> Official:
    # The README links shares by number, which do not reveal the names of the files: these are the names of the
    # configuration and of the model in it. main.py printed the published accuracies, and reads "model", for CSWin too.
    source = "LeapLabTHU/FLatten-Transformer@abdb115 README.md (Tsinghua Cloud)"
    return Official(tuple(f"{name}.pth" for name in names), preprocessing, ema=False, source=source)


def _deit(preset: str, name: str, digest: str) -> Official:
    source = "facebookresearch/deit README_deit.md (dl.fbaipublicfiles.com/deit)"
    return Official((f"{name}-{digest}.pth", f"{name}.pth", f"{preset}.pth"), SHORT_SIDE, ema=False, source=source)


def _pvt(preset: str) -> Official:
    source = "whai362/PVT classification/README.md (release v2)"
    return Official((f"{preset}.pth",), SHORT_SIDE, ema=False, source=source)


def _swin(preset: str, name: str, preprocessing: Preprocessing = SHORT_SIDE) -> Official:
    source = "microsoft/Swin-Transformer README.md (SwinTransformer/storage release v1.0.0)"
    return Official((f"{name}.pth", f"{preset}.pth"), preprocessing, ema=False, source=source)


def _cswin(preset: str, name: str, preprocessing: Preprocessing = SHORT_SIDE_248) -> Official:
    source = "microsoft/CSWin-Transformer@f111ae2 README.md (release v0.1.0)"
    return Official((f"{name}.pth", f"{preset}.pth"), preprocessing, ema=True, source=source)


OFFICIAL: dict[str, Official] = {
    "deit_t": _deit("deit_t", "deit_tiny_patch16_224", "a1311bcf"),
    "deit_s": _deit("deit_s", "deit_small_patch16_224", "cd65a155"),
    "deit_b": _deit("deit_b", "deit_base_patch16_224", "b5f2ef4d"),
    "pvt_tiny": _pvt("pvt_tiny"),
    "pvt_small": _pvt("pvt_small"),
    "pvt_medium": _pvt("pvt_medium"),
    "pvt_large": _pvt("pvt_large"),
    "pvt_v2_b0": _pvt("pvt_v2_b0"),
    "pvt_v2_b1": _pvt("pvt_v2_b1"),
    "pvt_v2_b2": _pvt("pvt_v2_b2"),
    "pvt_v2_b2_li": _pvt("pvt_v2_b2_li"),
    "pvt_v2_b3": _pvt("pvt_v2_b3"),
    "pvt_v2_b4": _pvt("pvt_v2_b4"),
    "pvt_v2_b5": _pvt("pvt_v2_b5"),
    "swin_t": _swin("swin_t", "swin_tiny_patch4_window7_224"),
    "swin_s": _swin("swin_s", "swin_small_patch4_window7_224"),
    "swin_b": _swin("swin_b", "swin_base_patch4_window7_224"),
    "swin_b_384": _swin("swin_b_384", "swin_base_patch4_window12_384", SQUASH_WHOLE),
    "cswin_t": _cswin("cswin_t", "cswin_tiny_224"),
    "cswin_s": _cswin("cswin_s", "cswin_small_224"),
    "cswin_b": _cswin("cswin_b", "cswin_base_224"),
    "cswin_b_384": _cswin("cswin_b_384", "cswin_base_384", SHORT_SIDE_WHOLE),
    "flatten_pvt_t": _flatten(("flatten_pvt_t", "flatten_pvt_tiny")),
    "flatten_pvt_v2_b0": _flatten(("flatten_pvt_v2_b0", "flatten_pvtv2_b0")),
    "flatten_swin_t": _flatten(
        ("flatten_swin_t", "flatten_swin_t_224", "flatten_swin_tiny_224", "flatten_swin_tiny_patch4_224")
    ),
    "flatten_swin_s": _flatten(
        ("flatten_swin_s", "flatten_swin_s_224", "flatten_swin_small_224", "flatten_swin_small_patch4_224")
    ),
    "flatten_swin_b": _flatten(
        ("flatten_swin_b", "flatten_swin_b_224", "flatten_swin_base_224", "flatten_swin_base_patch4_224")
    ),
    "flatten_swin_b_384": _flatten(
        (
            "flatten_swin_b_384",
            "flatten_swin_base_384",
            "flatten_swin_base_patch4_384",
            "flatten_swin_base_patch4_384_finetune",
        ),
        SQUASH_WHOLE,
    ),
    "flatten_cswin_t": _flatten(
        ("flatten_cswin_t", "flatten_cswin_t_224", "flatten_cswin_tiny", "flatten_cswin_tiny_224")
    ),
}
"""By preset. For FLatten these are all that were published; the weights of DeiT-B at 384 pixels have no preset here."""


def find_official(folder: Path) -> tuple[dict[str, Path], list[str]]:
    """Return the official files in a folder, by preset, and the presets without one; other files are ignored.

    Raises:
        ValueError: if there is no such folder, or two files in it are for one preset.
    """
    if not folder.is_dir():
        raise ValueError(f"weights folder {folder} does not exist or is not a folder")
    paths = sorted(path for path in folder.iterdir() if path.is_file())
    found = {}
    for name, official in OFFICIAL.items():
        names = {_plain(file) for file in official.files}
        matching = [path for path in paths if _plain(path.name) in names]
        if len(matching) > 1:
            raise ValueError(
                f"{folder} holds {len(matching)} files for {name}, but only one may be there: "
                f"{', '.join(path.name for path in matching)}"
            )
        if matching:
            found[name] = matching[0]
    return found, [name for name in OFFICIAL if name not in found]


def weights_of(preset: str, path: Path) -> Weights:
    """Return the weights in an official file that gave the published accuracy: the moving average if that did.

    Raises ValueError for a file that cannot be read.
    """
    raw, averages = models_in(read_file(path))
    return weights_in(path, ema=bool(averages) and (OFFICIAL[preset].ema or not raw))


def _plain(name: str) -> str:
    return name.lower().replace("-", "_")


def official_cells(
    weights: Path,
    data: str,
    *,
    partial: bool,
    device: str,
    precision: str,
    workers: int,
    cache: str | None,
) -> tuple[list[Cell], list[str]]:
    """Return an evaluation of each official file in the folder `weights`, and a line for each preset without one.

    `partial` allows a `data` folder with fewer images of the 1000 classes than ImageNet-1K has.

    Raises ValueError if there is no such folder or no file in it.
    """
    found, missing = find_official(weights)
    lines = [f"no weights for {name}: {OFFICIAL[name].files[0]} is not in {weights}" for name in missing]
    if not found:
        raise ValueError(f"no official weights in {weights}; files are recognised by name, such as {_some_names()}")
    root = Path(data).resolve()
    if not root.is_dir():
        raise ValueError(f"--data {data}: no such folder")
    source = DataSource.folder(root) if partial else DataSource(IMAGENET, root=str(root))
    cells = [
        Cell(
            preset(name),
            Evaluate(
                weights_of(name, path),
                source,
                OFFICIAL[name].preprocessing,
                device,
                precision,  # type: ignore[arg-type]
                workers=workers,
                cache=cache,
            ),
        )
        for name, path in found.items()
    ]
    return cells, lines


def _some_names() -> str:
    return ", ".join(OFFICIAL[name].files[0] for name in ("flatten_swin_t", "swin_t", "pvt_tiny"))
