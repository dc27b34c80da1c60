"""Registry of the baselines of this package and of those that other packages install as entry points."""

from __future__ import annotations

import difflib
import inspect
from importlib import import_module

from anofield._plugins import Plugin, installed
from anofield.baselines.base import Baseline, Settings
from anofield.errors import UsageError

BUILT_IN = {
    "random": "untrained:Random",
    "intensity": "untrained:Intensity",
    "equalised": "untrained:Equalised",
    "asymmetry": "untrained:Asymmetry",
    "zscore": "statistics:ZScore",
    "pca": "statistics:Pca",
    "ae-dense": "autoencoders:DenseAutoencoder",
    "ae-spatial": "autoencoders:SpatialAutoencoder",
    "vae-dense": "autoencoders:DenseVae",
    "vae-spatial": "autoencoders:SpatialVae",
    "vae-restore": "restoration:VaeRestoration",
    "gmvae": "restoration:MixtureRestoration",
    "dae": "dae:Denoising",
    "disyre": "disyre:Restoring",
    "patch-memory": "memory:PatchMemory",
}


def known_baselines() -> list[str]:
    """Names of all baselines; another package cannot replace a baseline of this package."""
    return [*BUILT_IN, *installed("baseline", own=BUILT_IN)]


def plugin_of(name: str) -> Plugin | None:
    """The plug-in that a baseline is; None for a baseline of this package or an unknown one."""
    return installed("baseline", own=BUILT_IN).get(name)


def find_baseline(name: str) -> type[Baseline]:
    """The class of a baseline.

    Raises:
        UsageError: There is no such baseline, or an installed one cannot be imported or is not a complete `Baseline`.
    """
    if name in BUILT_IN:
        module, _, attribute = BUILT_IN[name].partition(":")
        own: type[Baseline] = getattr(import_module(f"{__package__}.{module}"), attribute)
        return own
    plugin = plugin_of(name)
    if plugin is None:
        known = known_baselines()
        near = difflib.get_close_matches(name, known, 1)
        meant = f"did you mean {near[0]}? " if near else ""
        raise UsageError(f"unknown baseline {name!r}", remedy=f"{meant}known: {', '.join(known)}")
    return _checked(plugin, plugin.load())


def _checked(plugin: Plugin, found: object) -> type[Baseline]:
    """A class that defines all that a baseline needs."""
    if not (isinstance(found, type) and issubclass(found, Baseline)):
        raise plugin.refused("is not a subclass of anofield.baselines.base.Baseline")
    if inspect.isabstract(found):
        raise plugin.refused(f"does not define {', '.join(sorted(found.__abstractmethods__))}")
    for name in ("title", "paper"):
        if not isinstance(getattr(found, name, None), str):
            raise plugin.refused(f"has no text {name!r}")
    if not (isinstance(found.settings_type, type) and issubclass(found.settings_type, Settings)):
        raise plugin.refused("has a settings_type that is not a subclass of anofield.baselines.base.Settings")
    return found
