"""The contrast of a scan (T1w, T2w, FLAIR, ...), read from its name, its folders or its nnU-Net channel."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from anofield.data.scan import stem

# Contrast → its names, in lower case. t2f, t1n: BraTS 2023; tirm, dark-fluid, da-fl: Siemens (t2_tirm_tra_dark-fluid).
WORDS = {
    "FLAIR": ("t2wflair", "t2flair", "flair", "t2f", "tirm", "darkfluid", "dark-fluid", "dark_fluid", "da-fl"),
    "T1c": ("t1wce", "t1wgd", "t1ce", "t1gd", "t1km", "t1post", "t1c"),
    "T2starw": ("t2starw", "t2star"),
    "T1w": ("t1w", "t1n", "mprage", "t1"),
    "T2w": ("t2w", "t2"),
    "PDw": ("pdw", "pd"),
    "SWI": ("swi",),
    "DWI": ("dwi",),
    "ADC": ("adc",),
    "CT": ("ct",),
}
_MEANING = {word: contrast for contrast, words in WORDS.items() for word in words}
_SPELLINGS = "|".join(sorted(_MEANING, key=len, reverse=True))
# A word stands alone, after a digit (p1T2w), or after the plane or dimension of a series (axT2, 3DFLAIR).
_WORD = re.compile(rf"(?:(?<![a-z])|(?<![a-z])(?:ax|axial|sag|cor|tra|[23]d))({_SPELLINGS})(?![a-z0-9])")
_ELSEWHERE = re.compile(r"(?:>|(?:^|[^a-z])(?:to|in|on|space|from|reg|coreg)[^a-z0-9]*)$")  # T1w in «T2w_in_T1w»
_ARROW = re.compile(r"(?<=[12w])(?:to|2)(?=t[12]|flair|mni)")  # of a registration: T2w2T1w, T2toT1
_POST = r"post[^a-z0-9]?(?:contrast|gd|gad|gado|gadolinium|km)"
# Behind the word for T1w; in front of it (short words there may be initials of a person); and BIDS's entity `ce`.
_AGENT = re.compile(
    rf"[^a-z0-9]+(?:{_POST}|gd|ce|gad|gado|gadolinium|km|post|enhanced|(?:with[^a-z0-9]?)?contrast)(?![a-z])|\+c(?![a-z])"
)
_AGENT_BEFORE = re.compile(rf"(?:^|[^a-z])(?:{_POST}|gado|gadolinium|enhanced|acq-ce|ce-[a-z0-9]+)[^a-z0-9]*$")
_INITIALS = frozenset({"pd", "ct"})  # the first word of a name may be a group: PD_012, CT_012
CHANNEL = re.compile(r"^(?P<case>.+)_(?P<channel>\d{4})$")  # nnU-Net: case_0000.nii.gz


def contrast_in(name: str, wanted: Iterable[str] = ()) -> str:
    """The contrast that a name without suffix states; empty for none.

    The last contrast counts, but not one that follows `to`, `in`, `on`, `from`, `reg` or `space`.

    Args:
        name: Name of a file or folder.
        wanted: Further words that count as contrasts, such as `UNIT1`.

    >>> [contrast_in(name) for name in ("p1_T2w", "BraTS-1-t2f", "sub-1_space-T1w_T2w", "T2w_to_T1w", "x_T1_Gd")]
    ['T2w', 'FLAIR', 'T2w', 'T2w', 'T1c']
    >>> contrast_in("p1_UNIT1", ["UNIT1"]), contrast_in("T10_a"), contrast_in("PD_012"), contrast_in("p1_3DFLAIR")
    ('UNIT1', '', '', 'FLAIR')
    """
    parts = {part.lower() for part in re.split(r"[^0-9A-Za-z]+", name)}
    asked = [word for word in wanted if word.lower() not in _MEANING and word.lower() in parts]
    if asked:
        return asked[0]
    found, text = "", _plain(name)
    for match in _words(text):
        if _ELSEWHERE.search(text[: match.start()]):
            continue
        found = _MEANING[match[1]]
        if found == "T1w" and _is_enhanced(text, match):
            found = "T1c"
    return found


def canonical(word: str) -> str:
    """The usual name of a contrast; an unknown one stays as it is.

    >>> canonical("t2"), canonical("flair"), canonical("UNIT1")
    ('T2w', 'FLAIR', 'UNIT1')
    """
    return _MEANING.get(word.lower(), word)


def without_contrast(name: str) -> str:
    """A name without the words for contrasts: what the scans of one subject have in common.

    A name that begins with such a word, which may be the same for every subject, stays as it is.

    >>> without_contrast("p1_T2w"), without_contrast("T2w_brain"), without_contrast("PD_012")
    ('p1', 'T2w_brain', 'PD_012')
    """
    spans = [match.span() for match in _words(_plain(name))]
    if spans and spans[0][0] == 0:
        return name
    for start, end in reversed(spans):
        name = name[:start] + name[end:]
    return re.sub(r"([_\-. ])[_\-. ]+", r"\1", name).strip("_-. ") if spans else name


def contrasts_of(
    paths: Sequence[Path], root: Path | None, wanted: Iterable[str], channels: Mapping[Path, str]
) -> dict[Path, str]:
    """The contrast of every scan; empty where nothing states it.

    The name of a file counts first, then its channel, then the folders from the scan up to the root.

    Args:
        paths: Scans.
        root: Folder that they were searched in; None if there is none.
        wanted: Further words that count as contrasts.
        channels: Result of `channels_of`.
    """
    wanted = list(wanted)
    return {
        path: contrast_in(stem(path), wanted) or channels.get(path, "") or _of_folders(path, root, wanted)
        for path in paths
    }


def channels_of(paths: Iterable[Path]) -> dict[Path, str]:
    """The scans whose names end in a channel of nnU-Net or the Medical Segmentation Decathlon (`_0000`).

    Returns:
        For each of them its contrast by the `channel_names` or `modality` of `dataset.json`, else its number.
    """
    by_folder: defaultdict[Path, dict[Path, re.Match[str]]] = defaultdict(dict)
    for path in paths:
        if match := CHANNEL.match(stem(path)):
            by_folder[path.parent][path] = match
    found: dict[Path, str] = {}
    for folder, matches in by_folder.items():
        numbers = {path: int(match["channel"]) for path, match in matches.items()}
        named = _named_channels(folder)
        if set(numbers.values()) <= set(named):
            found.update({path: named[number] for path, number in numbers.items()})
        elif _are_channels(matches.values()):
            found.update({path: match["channel"] for path, match in matches.items()})
    return found


def counts_of(contrasts: Iterable[str]) -> str:
    """How many scans have each contrast, the most frequent first.

    >>> counts_of(["T2w", "FLAIR", "T2w"])
    'T2w 2, FLAIR 1'
    """
    return ", ".join(f"{name} {count}" for name, count in Counter(contrasts).most_common())


def _is_enhanced(text: str, match: re.Match[str]) -> bool:
    """Whether a word for T1w stands beside one for a contrast agent, or the name has the entity `ce` of BIDS."""
    after, before = _AGENT.match(text, match.end()), _AGENT_BEFORE.search(text[: match.start()])
    return bool(after or before or "_ce-" in text)


def _plain(name: str) -> str:
    """A name in lower case, of the same length, with arrows for registrations."""
    return _ARROW.sub(lambda match: ">" * len(match[0]), name.lower())


def _words(text: str) -> Iterator[re.Match[str]]:
    """The words for contrasts in a text of lower case."""
    return (match for match in _WORD.finditer(text) if match[1] not in _INITIALS or match.start() > 0)


def _of_folders(path: Path, root: Path | None, wanted: Sequence[str]) -> str:
    parents = path.parent.relative_to(root).parts if root else ()
    return next((found for folder in reversed(parents) if (found := contrast_in(folder, wanted))), "")


def _are_channels(matches: Iterable[re.Match[str]]) -> bool:
    """Whether numbers are channels and not ids: a case has the channel 0000 and another one, and none is above 9."""
    numbers: defaultdict[str, set[int]] = defaultdict(set)
    for match in matches:
        numbers[match["case"]].add(int(match["channel"]))
    several = any(0 in one and len(one) > 1 for one in numbers.values())
    return several and all(max(one) <= 9 for one in numbers.values())


def _named_channels(folder: Path) -> Mapping[int, str]:
    """Contrasts of the channels in the `dataset.json` of a folder or of the folder above; empty without one."""
    for place in (folder, folder.parent):
        try:
            content = json.loads((place / "dataset.json").read_text(encoding="utf-8"))
            names = content.get("channel_names") or content.get("modality") or {}
            pairs = names.items() if isinstance(names, dict) else enumerate(names)
            return {int(number): canonical(str(name)) for number, name in pairs}
        except (OSError, ValueError, TypeError, AttributeError, RecursionError):
            continue
    return {}
