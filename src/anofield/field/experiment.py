"""The experiment directory: `specs.json` with the published keys, checkpoints that survive interruptions, logs.

Layout of DeepSDF (Park et al. 2019) as used by Naval Marimont & Tarroni 2021; tensors and plain values only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from anofield._files import PARTIAL, file_hash, replacing_together, write_json
from anofield._progress import say
from anofield.data.nt import ROWS_FILE, read_rows
from anofield.errors import ExperimentError, MachineError
from anofield.field.logs import Logs, read_logs
from anofield.field.manifest import Entry, add_to_manifest
from anofield.field.parts import LATEST, PARTS, PREVIOUS, Parts, Whole
from anofield.field.published import AdamState, plain_codes, plain_weights
from anofield.field.specs import DECODER, Specs
from anofield.field.tensor_file import TensorFile, checked_tensors, write_partial, write_tensors
from anofield.typing import PathLike

SPECS_FILE, LOGS_FILE, PROVENANCE_FILE = "specs.json", "Logs.pth", "provenance.json"


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """State of a training run after `epoch` whole epochs and `step` steps of the next one.

    Attributes:
        epoch: Whole epochs done.
        step: Steps done of the next epoch.
        model: State dict of the network.
        code_ids: Case ids, row by row; empty for published files, unless a `dict_cid.k` lies beside `specs.json`.
        codes: Stored codes, (case, code).
        optimizer: State of Adam; empty where OptimizerParameters is missing, which is enough for detection but not for
            further training.
        logs: Logs up to this state.
        code_contents: Content hash of the scan of each row, hexadecimal; empty where it is not known.
        hash: SHA-256 of the files of weights and codes, shortened; empty for a state that was not read from files.
    """

    epoch: int
    step: int
    model: dict[str, Tensor]
    code_ids: list[str]
    codes: Tensor
    optimizer: AdamState
    logs: Logs
    code_contents: Sequence[str] = ()
    hash: str = ""


class Experiment:
    """One experiment directory.

    Attributes:
        path: The directory.
        specs: Content of its `specs.json`.
    """

    def __init__(self, path: PathLike) -> None:
        """Open a directory that holds a `specs.json`; see `Specs.read` for the errors."""
        self.path = Path(path)
        if not self.path.is_dir():
            raise ExperimentError("no such experiment directory", where=self.path, remedy="check -e or -m")
        self.specs = Specs.read(self.path / SPECS_FILE)
        self._claimed: bytes | None = None

    @classmethod
    def create(cls, path: PathLike, specs: Specs) -> Experiment:
        """Make the directory with its `specs.json`."""
        write_json(Path(path) / SPECS_FILE, specs.dump())
        return cls(path)

    def file(self, part: str, name: str) -> Path:
        """Path of a file: `<part>/<name>.pth`."""
        return Parts(self.path).path(part, name)

    def save(self, checkpoint: Checkpoint, names: list[str]) -> None:
        """Write a checkpoint under each name; after a kill at any moment a complete older checkpoint remains.

        All new files are complete before the first is renamed, and every `latest` becomes `previous` before the first
        is replaced, so the three folders always share an epoch. The manifest names the new files before they are there.

        Raises:
            MachineError: The disk is full or cannot be written, and the old state is intact; or the directory is gone.
        """
        self.require_there()
        write_tensors(self.path / LOGS_FILE, vars(checkpoint.logs))
        content = _contents(checkpoint)
        for name in names:
            with replacing_together([self.file(part, name) for part in PARTS]) as partials:
                for part, partial in zip(PARTS, partials, strict=True):
                    write_partial(partial, content[part])
                hashes = {part: file_hash(partial) for part, partial in zip(PARTS, partials, strict=True)}
                entry = Entry(name=name, epoch=checkpoint.epoch, step=checkpoint.step, files=hashes)
                add_to_manifest(self.path, entry)
                if name == LATEST:
                    self._keep_latest()
        self.require_there()  # it may have been removed meanwhile, and what was just written stands alone

    def claim(self) -> None:
        """Remember the present `provenance.json`: from now on `require_there` notices an exchanged directory."""
        self._claimed = (self.path / PROVENANCE_FILE).read_bytes()

    def require_there(self) -> None:
        """Check that nobody removed, renamed or exchanged the directory while it is in use.

        Raises:
            MachineError: It holds no `specs.json` any more, or the `provenance.json` of another start.
        """
        what = ""
        try:
            if self._claimed is not None and (self.path / PROVENANCE_FILE).read_bytes() != self._claimed:
                what = f"the experiment was exchanged while it was in use: its {PROVENANCE_FILE} is another one"
        except OSError:
            what = f"the experiment was removed or renamed while it was in use: there is no {PROVENANCE_FILE} any more"
        if not (self.path / SPECS_FILE).is_file():
            what = f"the experiment was removed or renamed while it was in use: there is no {SPECS_FILE} any more"
        if what:
            raise MachineError(
                what,
                where=self.path,
                why="what is saved here now would not be found, or would be found without what belongs to it",
                remedy="put the directory back and resume it with --continue latest, or train again",
            )

    def _keep_latest(self) -> None:
        """Rename `latest` to `previous`, unless an interrupted save left new `latest` files in some folders only."""
        if self.file(PARTS[0], LATEST).exists() and not self.file(PARTS[-1], LATEST).exists():
            return
        for part in PARTS:
            if self.file(part, LATEST).exists():
                self.file(part, LATEST).replace(self.file(part, PREVIOUS))

    def load(self, name: str = LATEST) -> Checkpoint:
        """Read a checkpoint, every file once and checked; `latest` falls back to the newest save that is complete.

        A line on stderr gives the reason and the epoch that is used instead.

        Raises:
            ExperimentError: There is no complete checkpoint of that name, its files are damaged or of different saves,
                or its weights or codes are not finite.
        """
        whole = self._whole(name)
        model, codes, *optimizer = whole.files
        epoch, step = whole.stamp
        weights = checked_tensors(model.content["model_state_dict"], model.path)
        table = _table(codes)
        ids = _texts(codes, "case_ids", len(table))
        return Checkpoint(
            epoch=epoch,
            step=step,
            model=plain_weights(weights) if self.specs.network_arch == DECODER else weights,
            code_ids=self._published_ids() if ids is None else ids,
            code_contents=_texts(codes, "case_contents", len(table)) or (),
            codes=table,
            optimizer=optimizer[0].content["optimizer_state_dict"] if optimizer else {},
            logs=self._logs(epoch),
            hash=whole.hash,
        )

    def has_checkpoint(self) -> bool:
        """Whether there is a complete checkpoint of any name; files of an interrupted first save do not count.

        Raises:
            ExperimentError: There is none, but a damaged file, or a removed one: a new training would replace
                what may be restored.
        """
        parts = Parts(self.path)
        try:
            return bool(parts.whole(LATEST))
        except ExperimentError:
            if parts.damaged:
                raise
            self._require_first_save()
            return False

    def _require_first_save(self) -> None:
        """Check that an incomplete `latest` is what a killed first save leaves: missing files have temporary names."""
        there = [self.file(part, LATEST).exists() for part in PARTS]
        missing = [
            f"{part}/{LATEST}.pth"
            for part, found in zip(PARTS, there, strict=True)
            if not found and not any((self.path / part).glob(f"{PARTIAL}*-{LATEST}.pth"))
        ]
        if any(there) and missing:
            raise ExperimentError(
                f"{' and '.join(missing)} of its checkpoint {'is' if len(missing) == 1 else 'are'} missing",
                where=self.path,
                why="a new training would overwrite what remains of the old one",
                remedy="restore the file from a backup, or train in another directory",
            )

    def model_hash(self, name: str = LATEST) -> str:
        """SHA-256 of the files of weights and codes that `load` reads, shortened; detections record it."""
        return self._whole(name).hash

    def names(self) -> list[str]:
        """Names of the checkpoints on disk, complete or not."""
        return Parts(self.path).names()

    def _whole(self, name: str) -> Whole:
        """The files of a checkpoint; says which one is used instead of a damaged one."""
        whole = Parts(self.path).whole(name)
        if whole.note:
            say(whole.note)
        return whole

    def _logs(self, epoch: int) -> Logs:
        """The logs; empty if `Logs.pth` is missing, or damaged, which a line on stderr reports."""
        path = self.path / LOGS_FILE
        if not path.exists():
            return Logs()
        try:
            return read_logs(path)
        except ExperimentError as error:
            say(f"{path} {error.what}: the history before epoch {epoch + 1} is lost")
            return Logs()

    def _published_ids(self) -> list[str]:
        """Case ids row by row from `dict_cid.k`; empty without that file."""
        path = self.path / ROWS_FILE
        rows = read_rows(path) if path.is_file() else {}
        return sorted(rows, key=rows.__getitem__)


def _contents(checkpoint: Checkpoint) -> dict[str, dict[str, object]]:
    """What the file of each part holds."""
    stamp = {"epoch": checkpoint.epoch, "step": checkpoint.step}
    cases = {"case_ids": checkpoint.code_ids, "case_contents": list(checkpoint.code_contents)}
    return {
        "ModelParameters": {**stamp, "model_state_dict": checkpoint.model},
        "LatentCodes": {**stamp, "latent_codes": {"weight": checkpoint.codes}, **cases},
        "OptimizerParameters": {**stamp, "optimizer_state_dict": checkpoint.optimizer},
    }


def _table(file: TensorFile) -> Tensor:
    """The codes of a file, (case, code), all of them finite."""
    table = plain_codes(file.content["latent_codes"], file.path)
    return checked_tensors({"latent_codes": table}, file.path)["latent_codes"]


def _texts(file: TensorFile, key: str, rows: int) -> list[str] | None:
    """A text per row of the code table; None where the file has no such list, or an empty one.

    Raises:
        ExperimentError: It is no list of as many texts.
    """
    found = file.content.get(key)
    if not found:
        return None
    if not isinstance(found, list) or len(found) != rows or not all(isinstance(one, str) for one in found):
        raise ExperimentError(
            f"its {key} are not one text for each of its {rows} codes",
            where=file.path,
            remedy="restore the file from a backup, or name another epoch",
        )
    return found
