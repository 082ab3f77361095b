"""``tinymim fit | validate | test | predict``: LightningCLI with composed recipes, a run folder and short errors."""

from __future__ import annotations

import functools
import gc
import sys
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import yaml
from jsonargparse.typing import NonNegativeInt
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from tinymim import files, precision
from tinymim.config import recipe, references
from tinymim.config.options import Action, Corruptions, Saving
from tinymim.config.parser import Parser
from tinymim.data.corrupted import CorruptedData
from tinymim.errors import TinymimError, several
from tinymim.log import say
from tinymim.methods.optim import total_batch
from tinymim.safety import names
from tinymim.tasks.segmentation import Segmenter
from tinymim.training import lock, preflight, run_folder, save_recipe, test_report
from tinymim.training.checkpoints import Checkpoints, SafeCheckpointIO, newest, problem_of, write_progress
from tinymim.training.evaluation_progress import EvaluationProgress
from tinymim.training.exact_resume import Exact
from tinymim.training.flops import Compute
from tinymim.training.masks import MaskFiles
from tinymim.training.nonfinite_guard import NonFiniteGuard, Rewind
from tinymim.training.one_precision import OnePrecision
from tinymim.training.predictions import Predictions
from tinymim.training.preemption import Preempted, Preemption, end_with_parent, rank, started_by_lightning
from tinymim.training.progress import Elapsed, FitProgress
from tinymim.training.quiet import quietly
from tinymim.training.save_recipe import SaveRecipe


@dataclass
class Attempt:
    """One of the attempts at a run; a rewind makes another.

    Args:
        preemption: whether this process was asked to end.
        held: keeps the lock of the run folder.
        checking: fit a few steps and write nothing.
        rewinding: go on in the run folder, whatever lies there.
        corruptions: of a test.
        kept: where the recipe refers to the environment.
    """

    preemption: Preemption
    held: ExitStack
    checking: bool = False
    rewinding: bool = False
    corruptions: Corruptions | None = None
    kept: list[tuple[references.Place, str]] = field(default_factory=list)


class TinymimCLI(LightningCLI):
    """LightningCLI over composed recipes.

    Args:
        arguments: subcommand first, recipes replaced by their resolved text.
        attempt: what it is for.
    """

    def __init__(self, arguments: list[str], attempt: Attempt):
        self.attempt, self.checking = attempt, attempt.checking
        super().__init__(
            pl.LightningModule,
            pl.LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            save_config_callback=None if self.checking else SaveRecipe,
            save_config_kwargs={"save_to_log_dir": False, "kept": attempt.kept},
            parser_class=Parser,
            seed_everything_default=0,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
            trainer_defaults={"enable_model_summary": False, "use_distributed_sampler": False},
            args=arguments,
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Keys of a recipe beside Lightning's own."""
        parser.add_argument("--name", default="run", help="name of the recipe")
        parser.add_argument("--run_dir", type=str | None, default=None, help="folder of the run; runs/NAME by default")
        parser.add_argument("--overwrite", type=bool, default=False, help="start again in a folder that holds a run")
        parser.add_argument("--on_nonfinite", type=Action, default="stop", help="stop or rewind; see NonFiniteGuard")
        parser.add_argument("--max_rewinds", type=NonNegativeInt, default=3, help="then a run stops after all")
        parser.add_argument("--checkpoint", type=Saving, default=Saving(), help="when checkpoints are written")
        parser.add_argument(
            "--compare", type=dict | None, default=None, help="what `tinymim distill` does after this fit"
        )

    def _parse_ckpt_path(self) -> None:
        """Lightning would lay stored hyper-parameters over the command line; a run follows its recipe."""

    def instantiate_classes(self) -> None:
        """Lay corruptions over the data where they are asked for, and keep Lightning's own table of figures away: it
        shows each figure under both loaders."""
        super().instantiate_classes()
        if self.attempt.corruptions:
            self.datamodule = CorruptedData(self.datamodule, self.attempt.corruptions)
        if self.subcommand in ("validate", "test"):
            own = self.config_init[self.subcommand]
            self._shown, own.verbose = own.verbose, False

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        """Settle the run folder, then build the trainer with our records, guard and progress."""
        config = self.config[self.subcommand]
        if not config.run_dir:
            names.check(config.name, "name")
        self.model.trial = self.checking  # of a module with a cache: store nothing that stays
        self.run_dir = Path(config.run_dir or Path("runs") / config.name)
        asked = config.get("ckpt_path")
        complete = getattr(self.model, "complete", False)
        if complete and self.subcommand == "fit":
            raise TinymimError(f"model: {type(self.model).__name__} trains nothing; use it with `tinymim test`")
        if asked is None and self.subcommand != "fit" and not complete:
            raise TinymimError(
                "ckpt_path: name a checkpoint, or `last` of the run_dir; without one the weights are random"
            )
        if asked == "last":
            self._resolve_last(config)
        elif (path := config.get("ckpt_path")) and not Path(path).is_file():
            raise TinymimError(f"ckpt_path: there is no checkpoint at {path}")
        elif path and (problem := problem_of(Path(path))):
            raise TinymimError(f"ckpt_path: {problem}; name another, or `last` for the newest whole one of the run_dir")
        fresh = self.subcommand == "fit" and not self.checking
        if fresh and rank() == 0:
            ours = (
                self.attempt.rewinding
                or asked == "last"
                or (bool(asked) and self.run_dir.resolve() in Path(asked).resolve().parents)
            )
            own = functools.partial(lock.hold, self.run_dir, "run_dir")
            used = (self.run_dir / lock.NAME).is_file()
            if used:  # by a run, which may still be at work: that comes before what it has written
                self.attempt.held.enter_context(own())
            run_folder.check(self.run_dir, ours, config.overwrite)
            if not used:
                self.attempt.held.enter_context(own())
            run_folder.clear(self.run_dir, ours)
        kwargs["default_root_dir"] = str(self.run_dir)
        kwargs["plugins"] = [SafeCheckpointIO(), *_listed(config.trainer.plugins)]
        kwargs["enable_progress_bar"] = False if self.checking else config.trainer.enable_progress_bar
        if self.checking:
            kwargs["enable_checkpointing"] = False
        if config.trainer.logger is None:
            kwargs["logger"] = self._loggers() if fresh else False
        self.trainer_defaults = {**self.trainer_defaults, "callbacks": self._callbacks(fresh)}
        return super().instantiate_trainer(**kwargs)

    def _resolve_last(self, config: Any) -> None:
        """Put the path in place of ``last``, or nothing in a fresh folder."""
        found = newest(self.run_dir)
        if found is None and self.subcommand != "fit":
            raise TinymimError(f"ckpt_path: {self.run_dir} holds no checkpoint yet")
        if self.subcommand == "fit":
            say(f"resuming from {found}" if found else f"nothing to resume in {self.run_dir}: starting from zero")
        config.ckpt_path = self.config_init[self.subcommand].ckpt_path = str(found) if found else None

    def after_fit(self) -> None:
        """Validate the final weights if the last epoch did not, and write the figures."""
        if self.checking or self.trainer.interrupted:
            return
        untrained = self._elapsed.first in (-1, self.trainer.global_step)
        if untrained and (self.run_dir / "results.json").is_file():  # a finished run was resumed
            return
        metrics = dict(self.trainer.callback_metrics)
        seconds = self._elapsed.seconds
        if self._elapsed.validated != self.trainer.global_step:
            self.trainer.validate(self.model, datamodule=self.datamodule, verbose=False)
            metrics |= self.trainer.callback_metrics
        backbone: Any = self.model.backbone
        seen = self.trainer.global_step * total_batch(self.trainer)
        content = {
            "metrics": {name: float(value) for name, value in metrics.items()},
            "seconds": round(seconds, 1),
            "epochs": self.trainer.current_epoch,
            "steps": self.trainer.global_step,
            "images": len(self.datamodule.train),
            "images_seen": seen,
            "flops": seen * self._compute.flops,
            "parameters": sum(parameter.numel() for parameter in backbone.parameters()),
            "weights": str(getattr(self.model, "provenance", None) or "from scratch"),
            "backbone": backbone.record(),
            "skipped_steps": [entry["step"] for entry in self._guard.skipped],
        }
        if self.trainer.is_global_zero:
            files.write_json(self.run_dir / "results.json", content)
            write_progress(self.run_dir, "done", self.trainer, self._elapsed)

    def after_validate(self) -> None:
        """Show the figures."""
        self._finish(None)

    def after_test(self) -> None:
        """Show the figures, and write them into the folder of the run that the checkpoint is of."""
        path = Path(self.config_init[self.subcommand].ckpt_path or "")
        given = self.config[self.subcommand].run_dir is not None or path.parent.name != "checkpoints"
        self._finish(self.run_dir if given else path.parent.parent)

    def _finish(self, run_dir: Path | None) -> None:
        path = self.config_init[self.subcommand].ckpt_path
        test_report.finish(self.trainer, self.model, self.datamodule, path, run_dir, self._shown)

    def _loggers(self) -> list[Any]:
        where = {"save_dir": str(self.run_dir), "name": "", "version": ""}
        return [CSVLogger(**where), TensorBoardLogger(**where)]  # type: ignore[arg-type]

    def _callbacks(self, fresh: bool) -> list[pl.Callback]:
        if self.checking:
            return [OnePrecision(), NonFiniteGuard(write=False), preflight.Preflight(stop=True)]
        whole = self.config[self.subcommand]
        config = whole.trainer
        bar = FitProgress() if self.subcommand == "fit" else EvaluationProgress()
        progress = [bar] if config.enable_progress_bar is not False else []
        if not fresh:
            writer = MaskFiles if isinstance(self.model, Segmenter) else Predictions
            return [OnePrecision(), *progress, *([writer(self.run_dir)] if self.subcommand == "predict" else [])]
        monitor, mode = getattr(self.model, "monitor", ("val/loss", "min"))
        common: dict[str, Any] = {"dirpath": self.run_dir / "checkpoints", "enable_version_counter": False}
        best = ModelCheckpoint(filename="best", monitor=monitor, mode=mode, auto_insert_metric_name=False, **common)
        rates = [] if config.logger is False else [LearningRateMonitor("step")]
        self._elapsed = Elapsed()
        last = Checkpoints(self.run_dir, whole.checkpoint, self.attempt.preemption, self._elapsed)
        checkpoints = [] if config.enable_checkpointing is False else [best, last]
        self._guard = NonFiniteGuard(whole.on_nonfinite, whole.max_rewinds)
        seed = whole.seed_everything
        exact = Exact(seed if isinstance(seed, int) and not isinstance(seed, bool) else None)
        self._compute = Compute()
        own = [OnePrecision(), exact, self._guard, self._compute, preflight.Preflight()]
        return [*own, *progress, *rates, self._elapsed, *checkpoints]


def _listed(plugins: Any) -> list[Any]:
    return plugins if isinstance(plugins, list) else [plugins] * (plugins is not None)


def run(command: str, arguments: list[str], checking: bool = False) -> Path:
    """Run one Lightning command over a recipe.

    Args:
        command: ``fit``, ``validate``, ``test`` or ``predict``.
        arguments: the rest of the command line.
        checking: a fit of a few steps that writes nothing.

    Returns:
        The run folder.

    Raises:
        TinymimError: anything the user can mend, all mistakes of a recipe together.
    """
    config, rest = recipe.resolve(arguments)
    if config:
        asked_only = any(argument.startswith(("--print_config", "--help")) or argument == "-h" for argument in rest)
        if not asked_only and (found := preflight.problems(config)):
            raise several(f"{config.get('name', 'recipe')} has {len(found)} mistake(s)", found)
    kept, config = list(references.places(config)), references.filled(config)
    if precision.is_auto(config):  # what it is settled to is saved, so that the run goes on in it
        kept = [(place, text) for place, text in kept if place != ("trainer", "precision")]
    config = precision.settle(config, save_recipe.precision_before(config) if command == "fit" else None)
    if started_by_lightning():
        end_with_parent()
    corruptions = config.pop("corruptions", None)
    if corruptions is not None and command != "test":
        raise TinymimError("corruptions: they are for `tinymim test`; leave them out")
    corrupting = Corruptions(**corruptions) if corruptions is not None else None
    rewinding = False
    while True:
        whole = [command, *(["--config", yaml.safe_dump(config)] if config else []), *rest]
        with Preemption() as preemption, ExitStack() as held:
            try:
                attempt = Attempt(preemption, held, checking, rewinding, corrupting, kept)
                return quietly(functools.partial(TinymimCLI, whole, attempt)).run_dir
            except Rewind as rewind:
                say(f"tinymim {command}: {rewind}")
                rewinding = True
                config["ckpt_path"] = str(rewind.checkpoint) if rewind.checkpoint else config.get("ckpt_path")
            except Preempted as preempted:
                if rank() == 0:
                    raise
                sys.exit(0 if started_by_lightning() else preempted.code)  # the first process tells, and for all
        gc.collect()  # networks and optimiser of the attempt before, which hold each other in rings
