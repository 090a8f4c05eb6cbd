"""Attentions: how tokens mix. One file each, named as it is registered; every file in this folder is loaded."""

import importlib
import pkgutil

from attentions._contract import Attention, Given, Grid, Macs, Site
from attentions._implied import ImpliedMap, implied_map
from attentions._operators import operator_macs, operators, register_operator
from attentions._options import fits
from attentions._paths import PATHS, allows, used_paths, using_path
from attentions._registry import (
    broken_packages,
    copied_files,
    error_line,
    load,
    load_file,
    loaded_files,
    lookup,
    names,
    register,
    source_digest,
    temporary_registry,
    unknown,
)
from attentions._spec import AttentionSpec

__all__ = [
    "PATHS",
    "Attention",
    "AttentionSpec",
    "Given",
    "Grid",
    "ImpliedMap",
    "Macs",
    "Site",
    "allows",
    "broken_packages",
    "copied_files",
    "error_line",
    "fits",
    "implied_map",
    "load",
    "load_file",
    "loaded_files",
    "lookup",
    "names",
    "operator_macs",
    "operators",
    "register",
    "register_operator",
    "source_digest",
    "temporary_registry",
    "unknown",
    "used_paths",
    "using_path",
]

for _module in pkgutil.iter_modules(__path__):
    if not _module.name.startswith("_"):
        importlib.import_module(f"{__name__}.{_module.name}")
