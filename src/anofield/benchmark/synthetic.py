"""The suites on synthetic people: all share the world `T2w`, and each differs from its training in one way.

The same case numbers are the same people wherever they are scanned, so suites differ in nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from anofield.benchmark.people import Change, Changed, First, People, Phantoms, displaced, thick
from anofield.benchmark.suite import AGAINST, Column, Part, Setting, Suite, usual
from anofield.benchmark.world import World
from anofield.detect.options import SMALL_LESIONS, ScoreOptions
from anofield.phantom.cohort import Cohort, plan_cohort
from anofield.phantom.lesions.kinds import HELD_OUT_KINDS, LESION_KINDS
from anofield.phantom.variety import FULL_VARIETY, UNUSUAL, Variety

HOME, ELSEWHERE = "A", ("B", "C")  # site of the training, and sites of the suite `sites`
NEW_SITE_COUNTS = (0, 5, 20)  # healthy people of a new site to calibrate on; 0 keeps the thresholds of the training's
# First case numbers of the groups, which share no person.
TRAIN, CALIBRATION, HEALTHY, NEW_SITE, ODD, LESIONS = 0, 1000, 2000, 3000, 4000, 5000
STEP = 100  # numbers for each lesion kind
FEWEST = 2  # people of a lesion kind in a suite with many kinds


@dataclass(frozen=True)
class Synthetic:
    """Synthetic people for a setting.

    Attributes:
        setting: Sizes and seed.
        modality: Contrast of the scans.
    """

    setting: Setting
    modality: str = "T2w"

    def people(
        self,
        name: str,
        first: int,
        count: int,
        kind: str | None = None,
        *,
        site: str = HOME,
        variety: Variety = FULL_VARIETY,
    ) -> Phantoms:
        """`count` people with case numbers from `first`, all healthy or all with a lesion of a kind."""
        plan = plan_cohort(0, count, (kind,), first) if kind else plan_cohort(count, 0, (), first)
        return Phantoms(name=f"{self.modality}-{site}-{name}", cohort=self._cohort(site, variety), plan=plan)

    def _cohort(self, site: str, variety: Variety) -> Cohort:
        size = self.setting.sizes.plan.scan_size
        return Cohort("brats", size=size, modality=self.modality, variety=variety, site=site)

    @property
    def world(self) -> World:
        """The world of this contrast; `T2w` is that of all suites on synthetic people."""
        return self.setting.world(self.modality, self.people("train", TRAIN, self.setting.sizes.plan.n_train))

    def calibration(self) -> Phantoms:
        """Healthy people to calibrate on."""
        return self.people("calibration", CALIBRATION, self.setting.sizes.plan.n_calibration)

    def ill(self, kind: str = "glioma", count: int = 0, site: str = HOME) -> Phantoms:
        """People with lesions of a kind; 0 takes the number of the setting."""
        first = LESIONS + STEP * list(LESION_KINDS).index(kind)
        return self.people(kind, first, count or self.setting.sizes.plan.n_test, kind, site=site)

    def healthy(self, site: str = HOME) -> Phantoms:
        """Healthy people of the test."""
        return self.people("healthy", HEALTHY, self.setting.sizes.healthy, site=site)


def straight(setting: Setting) -> Suite:
    """Gliomas in heads that lie as in training."""
    made = Synthetic(setting)
    part = Part(name="all", calibration=made.calibration(), test=(made.ill(), made.healthy()))
    shows = "Gliomas; heads lie straight and are scanned as in training."
    return _suite("straight", shows, made, (part,), usual("all"), few=True)


def displaced_heads(setting: Setting) -> Suite:
    """The people of `straight`, turned, shifted and scaled."""
    shows = (
        "The people of `straight`, turned by up to 30°, shifted by up to 30 mm, scaled by 0.9 to 1.1 (the affine alone "
        "changes); those of the calibration too."
    )
    return _changed("displaced", shows, Synthetic(setting), displaced)


def thick_slices(setting: Setting) -> Suite:
    """The people of `straight` in thick slices."""
    shows = "The people of `straight` in axial slices of 5 mm; those of the calibration too."
    return _changed("thick", shows, Synthetic(setting), thick)


def sites(setting: Setting) -> Suite:
    """The people of `straight`, scanned at other sites, with some healthy people of the site to calibrate on."""
    made = Synthetic(setting)
    parts, columns = [], []
    for site in ELSEWHERE:
        test = (made.ill(site=site), made.healthy(site))
        new = made.people("new-site", NEW_SITE, setting.sizes.new_site, site=site)
        counts = [min(count, setting.sizes.new_site) for count in NEW_SITE_COUNTS]
        people: list[People] = [First(people=new, count=count) if count else made.calibration() for count in counts]
        parts += [
            Part(name=f"{site}{n}", calibration=p, test=test) for n, p in zip(NEW_SITE_COUNTS, people, strict=True)
        ]
        columns += _site_columns(site)
    shows = (
        "The people of `straight`, scanned at the sites B and C, which differ in contrast, bias, noise and stripping. "
        "Thresholds come from site A (0), or from 5 or 20 healthy people of the new site; AP does not depend on them."
    )
    return _suite("sites", shows, made, tuple(parts), tuple(columns))


def _site_columns(site: str) -> list[Column]:
    first, *_ = names = [f"{site}{count}" for count in NEW_SITE_COUNTS]
    columns = [Column(f"{site}: AP", "ap", first), Column(f"{site}: against the best other", AGAINST, first)]
    columns += [Column(f"{name}: Dice", "dice", name) for name in names]
    columns.append(Column(f"{site}: Dice, oracle", "dice_oracle", first))
    return columns + [Column(f"{name}: false volume / promise", "false_promise", name) for name in names]


def small(setting: Setting) -> Suite:
    """Small bright lesions, with the filters of `small-lesions` for every method."""
    made, preset = Synthetic(setting), SMALL_LESIONS
    filters = preset.filters.model_copy(update={"tail": "bright"})
    test = (made.ill("small"), made.healthy())
    part = Part(name="all", calibration=made.calibration(), test=test, filters=filters, fit=preset.fit)
    shows = "Small bright lesions, with the filters of the preset `small-lesions` for every method."
    return _suite("small", shows, made, (part,), usual("all", small=True))


def dark(setting: Setting) -> Suite:
    """Lesions that are darker than what they replace."""
    made = Synthetic(setting)
    part = Part(name="all", calibration=made.calibration(), test=(made.ill("dark"), made.healthy()),
                filters=ScoreOptions(tail="dark"))  # fmt: skip
    shows = "Lesions that are darker than the tissue that they replace; every method looks for dark departures."
    return _suite("dark", shows, made, (part,), usual("all"))


def unusual(setting: Setting) -> Suite:
    """Healthy people of unusual anatomy, whose every finding is false."""
    made = Synthetic(setting)
    variety = replace(FULL_VARIETY, unusual=tuple(UNUSUAL))
    odd = made.people("unusual", ODD, setting.sizes.plan.n_test, variety=variety)
    part = Part(name="all", calibration=made.calibration(), test=(odd,))
    shows = (
        "Healthy people with large ventricles, a cavum septi, wide cisterns or an asymmetric cortex: every finding is "
        "false. The calibration has usual people."
    )
    suite = _suite("unusual", shows, made, (part,), usual("all", voxels=False))
    return replace(suite, rank="false_ml", lower_is_better=True)


def other_lesions(setting: Setting) -> Suite:
    """Lesions of kinds that nobody may tune on, bright or dark."""
    made = Synthetic(setting)
    count = max(FEWEST, setting.sizes.plan.n_test // 4)
    groups = tuple(made.ill(kind, count) for kind in HELD_OUT_KINDS)
    filters = ScoreOptions(tail="both")
    part = Part(name="all", calibration=made.calibration(), test=(*groups, made.healthy()), filters=filters)
    kinds = [
        Column(f"{kind}: AP", f"ap {group.name}", "all") for kind, group in zip(HELD_OUT_KINDS, groups, strict=True)
    ]
    shows = (
        f"Lesions of kinds that nobody may tune on ({', '.join(HELD_OUT_KINDS)}). Every method looks for bright and "
        "dark departures."
    )
    return _suite("other-lesions", shows, made, (part,), (*usual("all"), *kinds))


def _changed(name: str, shows: str, made: Synthetic, change: Change) -> Suite:
    groups = (made.calibration(), made.ill(), made.healthy())
    calibration, *test = (Changed(people=group, change=change) for group in groups)
    part = Part(name="all", calibration=calibration, test=tuple(test))
    return _suite(name, shows, made, (part,), usual("all"))


def _suite(
    name: str, shows: str, made: Synthetic, parts: Sequence[Part], columns: Sequence[Column], *, few: bool = False
) -> Suite:
    return Suite(name=name, shows=shows, world=made.world, parts=tuple(parts), columns=tuple(columns), few=few)
