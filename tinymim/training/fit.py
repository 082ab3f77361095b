"""``tinymim fit | validate | test | predict``: LightningCLI with composed recipes, a run folder and short errors."""

from __future__ import annotations

import atexit
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
from lightning.pytorch.callbacks import LearningRateMonitor, Timer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from typing_extensions import override

from tinymim import files, precision
from tinymim.config import recipe, references, trainer_parts
from tinymim.config.options import Action, Saving
from tinymim.config.parser import Parser
from tinymim.data.corrupted import CorruptedData
from tinymim.data.corruptions import Corruptions
from tinymim.data.data_module import ImageData
from tinymim.errors import TinymimError, mistaken
from tinymim.log import Details, details, say
from tinymim.tasks.segmentation import Segmenter
from tinymim.training import preflight, run_folder, run_record, run_results, test_report
from tinymim.training.checkpoint_files import SafeCheckpointIO, absent, newest, problem_of, say_beginning
from tinymim.training.checkpoints import BestCheckpoint, Checkpoints, total_steps, write_progress
from tinymim.training.exact_resume import ExactResume, check_ahead
from tinymim.training.flops import FlopCount
from tinymim.training.log_interval import LogInterval
from tinymim.training.messages import readable_errors
from tinymim.training.monitored import MonitoredMetrics
from tinymim.training.nonfinite_guard import NonFiniteGuard, Rewind
from tinymim.training.predictions import MaskFiles, PredictionArrays
from tinymim.training.preemption import Preempted, Preemption, end_workers
from tinymim.training.processes import CommonPrecision, check_processes, end_with_parent, rank, started_by_lightning
from tinymim.training.progress import Elapsed, progress_bar
from tinymim.training.run_record import SaveRecipe


@dataclass
class Attempt:
    """One attempt at a run; a rewind makes another."""

    preemption: Preemption
    held: ExitStack  # with the lock of the run folder
    checking: bool = False  # fit a few steps, and write nothing
    rewinding: bool = False  # go on in the run folder, whatever lies there
    corruptions: Corruptions | None = None  # to test under
    kept: list[tuple[references.Place, str]] = field(default_factory=list)  # where the recipe refers to the environment
    details: Details = field(default_factory=Details)  # lines on it that are not all said
    same: bool = False  # go on with a run of this very recipe and these images alone


class TinymimCLI(LightningCLI):
    """LightningCLI over composed recipes: the subcommand and, in place of recipes, their resolved text."""

    def __init__(self, arguments: list[str], attempt: Attempt):
        self.attempt, self.checking, self._command = attempt, attempt.checking, arguments[0]
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

    @override
    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        # the one that is run alone, as each gets a parser of a thousand options
        return {name: skipped for name, skipped in super().subcommands().items() if name == self._command}

    @override
    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument("--name", default="run", help="name of the recipe")
        parser.add_argument("--run_dir", type=str | None, default=None, help="folder of the run; runs/NAME by default")
        parser.add_argument("--overwrite", type=bool, default=False, help="start again in a folder that holds a run")
        parser.add_argument("--on_nonfinite", type=Action, default="stop", help="stop or rewind; see NonFiniteGuard")
        parser.add_argument("--max_rewinds", type=NonNegativeInt, default=3, help="then a run stops after all")
        parser.add_argument("--checkpoint", type=Saving, default=Saving(), help="when checkpoints are written")
        parser.add_argument("--compare", type=dict | None, default=None, help="what `tinymim distill` does next")

    @override
    def _parse_ckpt_path(self) -> None:
        pass  # Lightning would lay stored hyper-parameters over the command line; a run follows its recipe

    @override
    def instantiate_classes(self) -> None:
        super().instantiate_classes()
        if isinstance(self.datamodule, ImageData):
            self.datamodule.shown = functools.partial(references.hidden, held=self.attempt.kept)
        if self.attempt.corruptions:
            self.datamodule = CorruptedData(self.datamodule, self.attempt.corruptions)
        if self.subcommand in ("validate", "test"):  # Lightning's own table shows each figure under both loaders
            options = self.config_init[self.subcommand]
            self._print_figures, options.verbose = options.verbose, False

    @override
    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        config = self.config[self.subcommand]
        self.run_dir = run_folder.place(config.run_dir, config.name)
        self.model.trial = self.checking  # a module with a cache then stores nothing that stays
        checkpoint = config.get("ckpt_path")
        self._check_weights(checkpoint)
        self._resolve_checkpoint(config)
        if self.subcommand == "test":
            self._tested = test_report.folder(Path(config.ckpt_path or ""), self.run_dir, config.run_dir is not None)
        if self.attempt.same and config.ckpt_path:
            run_record.check_same(self.run_dir, self._parser(self.subcommand), config, self.datamodule)
        self.trainer_defaults = {**self.trainer_defaults, "callbacks": self._callbacks()}
        options = self._trainer_options(self.config_init[self.subcommand].trainer)
        trainer = super().instantiate_trainer(**kwargs, **options)
        check_processes(trainer, self.datamodule)
        if self._records() and rank() == 0:
            resume = self.attempt.rewinding or run_folder.goes_on(self.run_dir, checkpoint, config.overwrite)
            run_folder.claim(self.run_dir, resume, config.overwrite, self.attempt.held)
        return trainer

    def _records(self) -> bool:
        """Whether this command writes a run: a fit that is not only checked."""
        return self.subcommand == "fit" and not self.checking

    def _check_weights(self, checkpoint: str | None) -> None:
        """Raise where the model has nothing to train, or a test no weights."""
        complete = getattr(self.model, "complete", False)
        if complete and self.subcommand == "fit":
            raise TinymimError(f"model: {type(self.model).__name__} trains nothing; use it with `tinymim test`")
        if checkpoint is None and self.subcommand != "fit" and not complete:
            raise TinymimError(
                "ckpt_path: name a checkpoint, or `last` of the run_dir; without one the weights are random"
            )

    def _resolve_checkpoint(self, config: Any) -> None:
        """Put a whole checkpoint's path in place of ``last``, or none in a fresh folder; check any other path."""
        path = config.get("ckpt_path")
        if path == "last":
            last = newest(self.run_dir, parts=self.subcommand == "fit")
            if last is None and self.subcommand != "fit":
                raise TinymimError(f"ckpt_path: {self.run_dir} holds no checkpoint yet")
            if self.subcommand == "fit":
                check_ahead(last, config.trainer)
                say_beginning(last, self.run_dir)
            config.ckpt_path = self.config_init[self.subcommand].ckpt_path = str(last) if last else None
        elif path and not Path(path).is_file():
            raise TinymimError(f"ckpt_path: {absent(Path(path))}")
        elif path and (problem := problem_of(Path(path), parts=self.subcommand == "fit")):
            raise TinymimError(f"ckpt_path: {problem}; name another, or `last` for the newest whole one of the run_dir")
        elif path and self.subcommand == "fit":
            check_ahead(Path(path), config.trainer)

    def _trainer_options(self, trainer: Any) -> dict[str, Any]:
        """Options of Lightning's Trainer that we set beside the recipe's ``trainer``."""
        plugins = trainer.plugins if isinstance(trainer.plugins, list) else [trainer.plugins]
        options: dict[str, Any] = {
            "default_root_dir": str(self.run_dir),
            "plugins": [SafeCheckpointIO(), *(plugin for plugin in plugins if plugin is not None)],
            "enable_progress_bar": False if self.checking else trainer.enable_progress_bar,
            "max_time": None,  # see Checkpoints: Lightning's end of it cannot be gone on from
        }
        if self.checking:
            validates = 0 if trainer.num_sanity_val_steps == 0 else 1
            options |= {"enable_checkpointing": False, "num_sanity_val_steps": validates}
        beside = trainer_parts.beside_csv(trainer.logger, self.run_dir) if self._records() else trainer.logger or False
        return {**options, "logger": False if self.checking else beside}

    def _callbacks(self) -> list[pl.Callback]:
        if self.checking:
            return [CommonPrecision(), NonFiniteGuard(write=False), preflight.Preflight(stop=True), MonitoredMetrics()]
        config, trainer = self.config[self.subcommand], self.config[self.subcommand].trainer
        callbacks = self.config_init[self.subcommand].trainer.callbacks
        callbacks = callbacks if isinstance(callbacks, list) else [callbacks]
        shown = any(isinstance(callback, pl.callbacks.ProgressBar) for callback in callbacks)
        progress = [] if shown or trainer.enable_progress_bar is False else [progress_bar(str(self.subcommand))]
        if not self._records():
            writer = MaskFiles if isinstance(self.model, Segmenter) else PredictionArrays
            return [CommonPrecision(), *progress, *([writer(self.run_dir)] if self.subcommand == "predict" else [])]

        self._guard = NonFiniteGuard(config.on_nonfinite, config.max_rewinds)
        self._flops, self._elapsed = FlopCount(), Elapsed()
        exact = ExactResume(config.seed_everything if type(config.seed_everything) is int else None)
        rates = [] if trainer.logger is False else [LearningRateMonitor("step")]
        monitor, mode = getattr(self.model, "monitor", ("val/loss", "min"))
        naming = {"filename": "best", "auto_insert_metric_name": False, "enable_version_counter": False}
        best = BestCheckpoint(self.run_dir / "checkpoints", monitor=monitor, mode=mode, **naming)  # type: ignore[arg-type]
        limit = None if trainer.max_time is None else Timer(duration=trainer.max_time)._duration
        last = Checkpoints(self.run_dir, config.checkpoint, self.attempt.preemption, self._elapsed, limit)
        checkpoints = [] if trainer.enable_checkpointing is False else [best, last]
        # in this order: the guard judges a step before anything is written of it, checkpoints come last
        told = preflight.Preflight(details=self.attempt.details)
        watching = [CommonPrecision(), exact, self._guard, self._flops, told, MonitoredMetrics()]
        return [*watching, *progress, *rates, LogInterval(trainer.log_every_n_steps), self._elapsed, *checkpoints]

    def after_fit(self) -> None:
        """Validate the final weights if the last epoch did not, and write the figures."""
        trainer = self.trainer
        if self.checking or trainer.interrupted:
            return
        if self._elapsed.first in (-1, trainer.global_step):  # no step was left to take
            place = f"epoch {trainer.current_epoch} of {trainer.max_epochs}, step {trainer.global_step}"
            done = f"nothing to train: the checkpoint is at {place}; give a larger trainer.max_epochs or max_steps"
            if (self.run_dir / "results.json").is_file():
                say(done)
                return
            if not run_folder.goes_on(self.run_dir, trainer.ckpt_path):
                run_folder.clear(self.run_dir, resume=False)  # of what loggers have begun
                raise TinymimError(done)
        metrics, seconds, steps = dict(trainer.callback_metrics), self._elapsed.seconds, total_steps(trainer)
        if self._elapsed.validated != trainer.global_step:
            trainer.validate(self.model, datamodule=self.datamodule, verbose=False)
            metrics |= trainer.callback_metrics
        if trainer.is_global_zero:
            content = run_results.of(trainer, self.model, metrics, seconds, self._flops.flops, self._guard.skipped)
            files.write_json(self.run_dir / "results.json", references.without_values(content, self.attempt.kept))
            write_progress(self.run_dir, "done", trainer, self._elapsed, steps)

    def after_validate(self) -> None:
        """Show the figures."""
        self._report(None)

    def after_test(self) -> None:
        """Show the figures, and write them into the folder of the run that the checkpoint is of."""
        self._report(self._tested)

    def _report(self, run_dir: Path | None) -> None:
        checkpoint = references.without_values(self.config_init[self.subcommand].ckpt_path, self.attempt.kept)
        test_report.finish(self.trainer, self.model, self.datamodule, checkpoint, run_dir, self._print_figures)


def run(command: str, arguments: list[str], checking: bool = False, verbose: bool = False, same: bool = False) -> Path:
    """Run one Lightning command over a recipe.

    Args:
        command: ``fit``, ``validate``, ``test`` or ``predict``.
        arguments: the rest of the command line.
        checking: a fit of a few steps that writes nothing.
        verbose: say all lines on a fit before it begins, which its folder keeps in any case; a check always says them.
        same: go on with a run of this very recipe and these images alone, but for more epochs or steps.

    Returns:
        The run folder.

    Raises:
        TinymimError: anything the user can mend, all mistakes of a recipe together.
    """
    with details(verbose or checking or command != "fit") as kept:
        return _run(command, arguments, checking, kept, same)


def _run(command: str, arguments: list[str], checking: bool, details: Details, same: bool) -> Path:
    config, rest = recipe.resolve(arguments)
    help_only = any(argument.startswith(("--print_config", "--help")) or argument == "-h" for argument in rest)
    if config and not help_only and (errors := preflight.problems(config, command == "fit")):
        raise mistaken(config.get("name", "recipe"), errors)
    kept, config = list(references.places(config)), references.filled(config)
    if precision.is_auto(config):  # the settled one is saved, so that the run goes on in it
        kept = [(place, text) for place, text in kept if place != ("trainer", "precision")]
    config = precision.settle(config, run_record.precision_before(config) if command == "fit" else None)
    trainer_parts.place_loggers(config)
    if started_by_lightning():
        end_with_parent()
    corruptions = config.pop("corruptions", None)
    if corruptions is not None and command != "test":
        raise TinymimError("corruptions: they are for `tinymim test`; leave them out")
    rewinding, corrupting = False, Corruptions(**corruptions) if corruptions is not None else None

    while True:
        whole = [command, *(["--config", yaml.safe_dump(config)] if config else []), *rest]
        with Preemption() as preemption, ExitStack() as held:
            attempt = Attempt(preemption, held, checking, rewinding, corrupting, kept, details, same)
            try:
                with readable_errors():
                    return TinymimCLI(whole, attempt).run_dir
            except Rewind as rewind:
                say(f"tinymim {command}: {rewind}")
                rewinding = True
                config["ckpt_path"] = str(rewind.checkpoint) if rewind.checkpoint else config.get("ckpt_path")
            except preflight.MeasuredEnough:
                atexit.register(end_workers)
                return Path()
            except Preempted as preempted:
                atexit.register(end_workers)
                if rank() == 0:
                    raise
                sys.exit(0 if started_by_lightning() else preempted.code)  # the first process tells, and for all
        gc.collect()  # free the model and optimizer of the attempt before, which hold each other in reference cycles
