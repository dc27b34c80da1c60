"""Presets: named specs in the package, the published ones number by number."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

import anofield
from anofield.errors import UsageError
from anofield.field.model import build_field
from anofield.field.presets import PRESETS, preset
from anofield.field.specs import Specs
from helpers import PUBLISHED


def test_every_file_is_a_preset_and_opens() -> None:
    files = (Path(anofield.__file__).parent / "field" / "presets").iterdir()
    assert {path.name for path in files} == {f"{name}.json" for name in PRESETS}
    for name in PRESETS:
        specs = preset(name)
        assert Specs.model_validate(specs.dump()) == specs
        build_field(specs)


@pytest.mark.parametrize("name", ["ifl2021-160", "ifl2021-full"])
def test_published_presets_have_the_published_numbers(name: str) -> None:
    expected = Specs.model_validate(PUBLISHED)
    names = {"description": preset(name).description, "data_source": preset(name).data_source}
    assert preset(name) == expected.model_copy(update=names)
    assert sum(value.numel() for value in build_field(preset(name)).parameters()) == 1_847_698


def test_no_octave_of_the_default_lies_beyond_the_lattices_nyquist_frequency() -> None:
    assert (
        preset("default").octaves == math.floor(math.log2(96 / 2)) + 1
    )  # octave k has a wavelength of 96 / 2^k voxels


def test_an_unknown_preset_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match=r"'ifl'.*default, ifl2021-160, ifl2021-full"):
        preset("ifl")
