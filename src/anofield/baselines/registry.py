"""Registry of the baselines of this package and of those that other packages install as entry points."""

from __future__ import annotations

import difflib
from importlib.metadata import EntryPoint, entry_points

from anofield.baselines.base import Baseline
from anofield.errors import UsageError

GROUP = "anofield.baselines"
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
}


def known_baselines() -> dict[str, EntryPoint]:
    """Every baseline by name; another package cannot replace a baseline of this package."""
    found = {point.name: point for point in entry_points(group=GROUP)}
    own = {name: EntryPoint(name, f"{__package__}.{place}", GROUP) for name, place in BUILT_IN.items()}
    return {**own, **{name: point for name, point in found.items() if name not in own}}


def find_baseline(name: str) -> type[Baseline]:
    """The class of a baseline.

    Raises:
        UsageError: There is no such baseline, or an installed one cannot be imported or is not a `Baseline`.
    """
    known = known_baselines()
    if name not in known:
        near = difflib.get_close_matches(name, known, 1)
        meant = f"did you mean {near[0]}? " if near else ""
        raise UsageError(f"unknown baseline {name!r}", remedy=f"{meant}known: {', '.join(known)}")
    try:
        found = known[name].load()
    except (ImportError, AttributeError) as error:
        raise UsageError(
            f"the baseline {name!r} cannot be imported ({error})",
            where=known[name].value,
            remedy="fix or uninstall the package that provides it",
        ) from error
    if not (isinstance(found, type) and issubclass(found, Baseline)):
        raise UsageError(
            f"the baseline {name!r} is not a subclass of anofield.baselines.base.Baseline", where=known[name].value
        )
    return found
